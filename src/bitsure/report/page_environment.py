"""The template environment of pages: it escapes all text and lets no control character through."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitsure.base.plain_text import without_controls

if TYPE_CHECKING:
    import jinja2


def page_environment() -> jinja2.Environment:
    """Return an environment for pages, in which a name that is not given is an error."""
    import jinja2
    from markupsafe import Markup

    def safe(value: object) -> object:
        if isinstance(value, Markup):
            return Markup(without_controls(value))
        return without_controls(value) if isinstance(value, str) else value

    return jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, finalize=safe)
