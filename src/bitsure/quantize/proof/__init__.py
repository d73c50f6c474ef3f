"""The proof that a quantizer did its work: what changed in weights, layers' outputs, activations, keys and values."""
