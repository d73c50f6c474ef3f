"""Which part of a model quantization harms: passes of models of which one part is quantized, or one is restored."""
