"""Contracts on code that is not decorated: whole packages, programs, notebooks."""
