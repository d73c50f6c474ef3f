"""The engine for transformers models on this machine: what requests have in common at their beginning is run once."""
