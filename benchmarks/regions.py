"""The parts of a page that a command writes: the lines between `<!-- made: NAME -->` and `<!-- end -->`."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bitsure.base.errors import UserError

REGION = re.compile(r"(<!-- made: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def fill(page: str, regions: Mapping[str, Sequence[str]]) -> str:
    """Return the page with each region's lines between its comments; regions of other commands stay.

    Raises UserError if the page has no place for a region.
    """
    names = [name for _, name, _ in REGION.findall(page)]
    if set(regions) - set(names):
        raise UserError(f"The page has the regions {', '.join(names)}; there is something for {', '.join(regions)}.")

    def filled(match: re.Match[str]) -> str:
        lines = regions.get(match[2])
        return match[0] if lines is None else match[1] + "\n" + "\n".join(lines) + "\n\n" + match[3]

    return REGION.sub(filled, page)


def write_from_sweep(description: str, page: Path, regions: Callable[[Path], Mapping[str, Sequence[str]]]) -> None:
    """Be the command that fills a page from the sweep's directory that it is given, or ends with one sentence."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("sweep", type=Path, help="the directory of a finished sweep")
    parser.add_argument("--page", type=Path, default=page)
    given = parser.parse_args()
    try:
        filled = fill(given.page.read_text(encoding="utf-8"), regions(given.sweep))
    except UserError as error:
        sys.exit(f"Error: {error}")
    given.page.write_text(filled, encoding="utf-8")
    print(f"{given.page}: written from {given.sweep}")
