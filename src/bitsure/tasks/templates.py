"""The templates of tasks, which the harness renders: in a sandbox and within limits, whoever wrote them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2 import BaseLoader, StrictUndefined
from jinja2.exceptions import SecurityError
from jinja2.sandbox import SandboxedEnvironment
from lm_eval import utils

from bitsure.base.errors import UserError
from bitsure.base.rendering import rendered

SANDBOX = SandboxedEnvironment(loader=BaseLoader(), undefined=StrictUndefined, keep_trailing_newline=True)
SANDBOX.filters["regex_replace"] = utils.regex_replace


def sandbox_templates() -> None:
    """Let the harness render all templates of tasks by `apply_template` from now on; ordinary ones give the same text."""
    utils.apply_template = apply_template


def apply_template(template: str, doc: Mapping[str, Any]) -> str:
    """Return a document's text.

    Args:
        template: The template, as the task's YAML has it.
        doc: The document, whose columns are filled in.

    Raises:
        UserError: If the template reaches for what the sandbox keeps from it, or takes too much time or memory.
        UndefinedError: If the document lacks a column.
    """
    what = f"the template {template[:80]!r} of a task"
    try:
        return rendered(what, lambda: SANDBOX.from_string(template).render(**doc), lambda: len(str(doc)))
    except SecurityError as error:
        raise UserError(f"{what} is refused: {error} A template may read a document's columns, and nothing else.") from error
