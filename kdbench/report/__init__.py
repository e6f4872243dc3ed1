"""What people read: pure functions over rows and verdicts."""
