"""Bits of their own for each layer: chosen by measured KL divergence under a budget, or by a recipe that is a file."""
