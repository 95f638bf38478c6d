"""What crosses a data loader: batches, workers, ranks."""
