"""One page of everything that is known of the contracts of a package."""
