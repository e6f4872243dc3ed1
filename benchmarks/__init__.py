"""What kdbench costs, measured (`make bench`), and the instrument tested (`make validate-statistics`, `-trials`)."""
