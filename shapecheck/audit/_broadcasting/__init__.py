"""Broadcasts that nobody meant: found where they happen, reported by line of code."""
