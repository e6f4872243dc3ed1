"""What a trained student is worth: quality, fidelity, calibration, and what it costs."""
