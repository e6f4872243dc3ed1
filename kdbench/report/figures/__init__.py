"""Figures of the report: each a function from results to a `Chart`, or None where there is nothing to show."""
