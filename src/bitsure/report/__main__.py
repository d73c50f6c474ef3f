"""Run `python -m bitsure report` as `python -m bitsure.report`."""

import runpy
import sys

sys.argv[1:1] = ["report"]
runpy.run_module("bitsure", run_name="__main__")
