"""Leaderboard, statistics, verdict: pure functions over records."""
