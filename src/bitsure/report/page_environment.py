"""The template environment of pages: their frame, their style and script, and how all text in them is made harmless."""

from __future__ import annotations

import base64
import functools
import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING

from bitsure.base.plain_text import without_controls

if TYPE_CHECKING:
    import jinja2

# A page runs its own script and takes its own style, no other; it loads nothing and sends nothing.
POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; style-src {style}; script-src {script}"


@functools.cache
def page_template(package: str, name: str) -> jinja2.Template:
    """Return the template of a page, which is compiled once.

    Args:
        package: The package that has its file.
        name: The file.
    """
    return _environment().from_string(files(package).joinpath(name).read_text(encoding="utf-8"))


def _environment() -> jinja2.Environment:
    """Return an environment for pages, in which a name that is not given is an error.

    Templates extend `page_frame.html`, and name their sections with its macro `section`. Text is escaped and has no control
    characters.
    """
    import jinja2
    from markupsafe import Markup

    def safe(value: object) -> object:
        if isinstance(value, Markup):
            return Markup(without_controls(value))
        return without_controls(value) if isinstance(value, str) else value

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_file), autoescape=True, undefined=jinja2.StrictUndefined, finalize=safe
    )
    style, script = _file("page.css"), _file("page.js")
    policy = POLICY.format(style=_hash(style), script=_hash(script))
    environment.globals |= {"style": Markup(style), "script": Markup(script), "policy": Markup(policy)}
    return environment


def _file(name: str) -> str:
    return files("bitsure.report").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Return what a content security policy calls this text, and no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
