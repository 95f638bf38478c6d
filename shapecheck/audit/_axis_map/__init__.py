"""Where each axis of a tensor goes: written down, tried with coded data, and told apart from what looks like it."""
