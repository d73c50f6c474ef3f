"""One run from start to end: preparation, pipeline, directory, provenance, Weights & Biases."""
