"""Run the command `bitsure` as `python -m bitsure`."""

from bitsure.cli import main

main()
