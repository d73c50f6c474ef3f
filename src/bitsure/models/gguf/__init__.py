"""GGUF files, as llama.cpp writes them: their header, tensors and vocabulary, and the model that they hold."""
