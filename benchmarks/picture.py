"""docs/verdict_page.png: the top of a run's page, as Chromium shows it. `make picture ARGS=RUN_DIR`."""

from __future__ import annotations

import argparse
import io
from pathlib import Path

from PIL import Image

from bitsure.config.paths import PROJECT
from tests.builders.browser import chromium, opened

OUT = PROJECT / "docs" / "verdict_page.png"
WIDTH, HEIGHT = 1160, 830  # pixels of the screen
COLOURS = 64  # enough for text and few colours, in a fifth of the bytes
SHORT_PATHS = """
const walker = document.createTreeWalker(document.querySelector(".facts"), NodeFilter.SHOW_TEXT);
while (walker.nextNode()) walker.currentNode.data = walker.currentNode.data.replace(/\\/\\S+\\/(?=[^/\\s]+\\/[^/\\s]+)/, "…/");
"""  # the folders of the machine that the run was made on are nobody's business


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run_dir", type=Path, help="a run of the main job: python main.py")
    page = parser.parse_args().run_dir.resolve() / "report.html"
    with chromium() as browser, opened(browser, page, width=WIDTH) as shown:
        shown.evaluate(SHORT_PATHS)
        screen = shown.screenshot(clip={"x": 0, "y": 0, "width": WIDTH, "height": HEIGHT})
    Image.open(io.BytesIO(screen)).convert("RGB").quantize(COLOURS).save(OUT, optimize=True)
    print(f"{OUT}: {OUT.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
