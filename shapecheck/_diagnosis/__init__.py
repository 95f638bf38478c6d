"""The engine that may reject, and what is said when it does."""
