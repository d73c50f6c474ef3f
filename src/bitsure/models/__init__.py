"""Full-precision models: locating their files, reading facts from them, and loading them with transformers."""
