"""Pictures, which take most of a small run's time: drawn once, or blank."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import pytest
from PIL import Image

SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"></svg>'


def _png() -> bytes:
    file = BytesIO()
    Image.new("RGB", (1, 1), "white").save(file, format="png")
    return file.getvalue()


# a program that leaves the pictures of its process blank
BLANK = f"""
import vl_convert
vl_convert.vegalite_to_svg = lambda *given, **options: {SVG!r}
vl_convert.svg_to_png = lambda *given, **options: {_png()!r}
"""
NAMES = ("vegalite_to_svg", "svg_to_png")


@contextmanager
def blank() -> Iterator[None]:
    """Within the block, leave all pictures blank."""
    import vl_convert

    with pytest.MonkeyPatch.context() as patch:
        for name in NAMES:
            patch.setattr(vl_convert, name, getattr(vl_convert, name))  # which comes back at the end
        exec(BLANK, {})
        yield


_pictures: dict[str, Any] = {}


def forget_pictures() -> None:
    """Draw everything anew from here on."""
    _pictures.clear()


@contextmanager
def remembered_pictures() -> Iterator[None]:
    """Within the block, draw each specification once."""
    import vl_convert

    with pytest.MonkeyPatch.context() as patch:
        for name in NAMES:
            patch.setattr(vl_convert, name, _remembered(getattr(vl_convert, name)))
        yield


def _remembered(draw: Callable[..., Any]) -> Callable[..., Any]:
    def remembered(*given: Any, **options: Any) -> Any:
        key = json.dumps([draw.__name__, given, options], sort_keys=True)
        if key not in _pictures:
            _pictures[key] = draw(*given, **options)
        return _pictures[key]

    return remembered
