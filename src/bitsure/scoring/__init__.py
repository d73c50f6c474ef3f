"""Scoring a model on tasks: the harness asks, an engine gives every token's log-probability, records go to the store.

`engine.py` is the interface of an engine; `local/` is the one that runs transformers models on this machine.
"""
