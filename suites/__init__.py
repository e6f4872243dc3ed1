"""The suites that come with kdbench, one YAML file each."""
