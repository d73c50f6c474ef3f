"""Going through a model block by block, and which of its layers are quantized."""
