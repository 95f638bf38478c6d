"""Valid calls that are never made, changed in one place at a time, and what a contract says of them."""
