"""The tuned track: how the configurations of methods and controls are chosen, on the validation split."""
