"""The templates of tasks, which the harness renders: in a sandbox and within limits, whoever wrote them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from types import FunctionType
from typing import Any

from jinja2 import BaseLoader, StrictUndefined, Template
from jinja2.exceptions import SecurityError, TemplateSyntaxError
from lm_eval import utils
from markupsafe import Markup

from bitsure.base.errors import UserError, in_one_line
from bitsure.base.rendering import LimitedEnvironment, rendered

# The values of documents whose methods and attributes read nothing but the value itself.
PLAIN = (str, int, float, bool, bytes, type(None), list, tuple, dict, date, datetime, time, timedelta, Markup)


class _PlainEnvironment(LimitedEnvironment):
    """A sandbox that keeps templates from the methods of images and other objects of documents, which may write files."""

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return _is_plain(obj) and super().is_safe_attribute(obj, attr, value)

    def is_safe_callable(self, obj: Any) -> bool:  # a function or class is jinja's own: documents hold none
        return isinstance(obj, FunctionType | type) or _is_plain(getattr(obj, "__self__", obj))


def _is_plain(obj: Any) -> bool:
    return type(obj) in PLAIN or type(obj).__module__.startswith("jinja2.")


SANDBOX = _PlainEnvironment(loader=BaseLoader(), undefined=StrictUndefined, keep_trailing_newline=True)
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
        UserError: If the template reaches for what the sandbox keeps from it, takes too much time or memory, or is wrong.
        UndefinedError: If the document lacks a column.
    """
    what = f"the template {template[:80]!r} of a task"
    try:
        return rendered(what, lambda: _compiled(template).render(**doc), lambda: len(str(doc)))
    except SecurityError as error:
        raise UserError(f"{what} is refused: {error} A template may read a document's columns, and nothing else.") from error
    except (TemplateSyntaxError, TypeError, ValueError, ZeroDivisionError) as error:
        raise UserError(f"{what} cannot be rendered: {in_one_line(error)}. Correct it, or the document.") from error


@lru_cache(maxsize=256)
def _compiled(template: str) -> Template:
    """Return a template ready to be filled in; compiling takes four times as long as filling in a document's columns."""
    return SANDBOX.from_string(template)
