"""The one exception for what a user can mend; main.py prints its message without a traceback."""


class UserError(Exception):
    """Says what was given, what is allowed, where, and what to do."""
