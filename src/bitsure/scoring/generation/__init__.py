"""Answers that a model writes: batches with a key-value cache, the harness's stop sequences, every token's distribution."""
