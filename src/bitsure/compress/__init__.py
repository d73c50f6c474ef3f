"""How far quantized weights and activations compress, and what that means for loading."""
