"""Run `bitsure report` as `python -m bitsure.report`."""

import sys
from importlib import import_module

# The command stands above this package, which therefore does not import it where it is read.
import_module("bitsure.cli").main(["report", *sys.argv[1:]])
