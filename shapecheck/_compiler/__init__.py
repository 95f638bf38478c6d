"""Nodes become straight-line Python that may accept and never rejects."""
