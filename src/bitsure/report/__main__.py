"""Run `bitsure report` as `python -m bitsure.report`."""

import sys

from bitsure.cli import main

main(["report", *sys.argv[1:]])
