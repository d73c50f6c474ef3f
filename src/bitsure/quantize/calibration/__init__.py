"""The text that a quantizer learns from: finding it, identifying it, and cutting it into windows of tokens."""
