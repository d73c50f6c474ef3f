"""A workspace and a report in W&B, made by code: every panel answers a question."""
