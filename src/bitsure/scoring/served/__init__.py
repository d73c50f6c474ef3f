"""Scoring models that a server runs: the protocol, the test of what the server answers, and the engine."""
