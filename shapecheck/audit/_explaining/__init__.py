"""Shape specifications in words, beside shapes, and beside one another."""
