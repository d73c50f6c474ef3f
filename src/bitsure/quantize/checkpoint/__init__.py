"""Quantized weights on disk: writing them, reading them back, and putting them into a model."""
