"""Annotations proposed from what was seen in runs."""
