"""Texts that are scored token by token: where they are, how protocols cut them into windows, and their scores."""
