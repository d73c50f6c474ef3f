"""Full-precision models: where their files are, what those say, and loading them with transformers."""
