"""Contracts for `torch.export`: its dynamic shapes, and a guard for what it makes."""
