"""Functions and training steps on fake tensors: no data, no accelerator, no memory."""
