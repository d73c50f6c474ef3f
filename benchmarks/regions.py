"""The parts of a page that a command writes: the lines between `<!-- made: NAME -->` and `<!-- end -->`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from bitsure.base.errors import UserError

REGION = re.compile(r"(<!-- made: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def fill(page: str, regions: Mapping[str, Sequence[str]]) -> str:
    """Return the page with each region's lines between its comments. Raises UserError if the regions differ."""
    names = [name for _, name, _ in REGION.findall(page)]
    if sorted(names) != sorted(regions):
        raise UserError(f"The page has the regions {', '.join(names)}; there is something for {', '.join(regions)}.")
    return REGION.sub(lambda match: match[1] + "\n" + "\n".join(regions[match[2]]) + "\n\n" + match[3], page)
