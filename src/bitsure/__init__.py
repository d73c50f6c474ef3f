"""How sure is a language model after quantization?"""
