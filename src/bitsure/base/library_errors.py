"""Where the error of a library stands that a refusal puts in words."""

from __future__ import annotations

import logging

from bitsure.base.errors import in_one_line


def logged_or_quoted(log: logging.Logger, whose: str, error: BaseException) -> str:
    """Log a library's error with its traceback, and return the sentence that says where it stands.

    Args:
        log: The logger of the caller. A plan, the checks before a sweep and Python's interface have none at this level.
        whose: Whose error it is: a library's name or a class's.
        error: The error.

    Returns:
        That the run's log has it; the error itself in one line where there is no such log.
    """
    log.info("the error of %s", whose, exc_info=error)
    if log.isEnabledFor(logging.INFO):
        return "The run's log has its own error."
    return f"Its own error: {in_one_line(error).rstrip('.')}."
