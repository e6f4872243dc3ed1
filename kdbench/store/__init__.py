"""Records on disk (the truth) and MLflow (the view)."""
