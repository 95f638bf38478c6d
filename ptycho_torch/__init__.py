"""Ptychography with a physics-informed network, every tensor boundary under contract.

Import from the modules; this file imports nothing, so that ``ptycho-torch --help`` does not wait for torch.
"""
