"""What an annotation means: from a type hint to nodes that judge one value."""
