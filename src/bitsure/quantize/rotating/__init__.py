"""Rotations of a model's hidden states, which leave its function as it is: where they fit, what is folded, and how exactly."""
