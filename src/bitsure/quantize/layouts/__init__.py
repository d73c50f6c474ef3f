"""Layouts of quantized checkpoints, one a file: from tensors on disk, ours or others', to weights."""
