"""Numbers of bytes as text: memory and room on a disk in GiB, as machines count them, and sizes of files in GB or TB."""

from __future__ import annotations

BINARY = (2**30, "GiB", 1), (2**20, "MiB", 0), (2**10, "KiB", 0)  # each with the digits after its point
DECIMAL = (1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")


def binary_size(size: float) -> str:
    """Return a number of bytes of memory, or of room on a disk, in the binary unit that fits it, such as `12.3 GiB`."""
    for unit, name, digits in BINARY:
        if size >= 0.9995 * unit:  # what would be rounded to 1,024 of a smaller one
            return f"{size / unit:,.{digits}f} {name}"
    return f"{size:.0f} bytes"


def decimal_size(size: float | None) -> str:
    """Return a number of bytes in the decimal unit that fits it, such as `1.23 MB`; – for None."""
    if size is None:
        return "–"
    for unit, name in DECIMAL:
        if size >= 0.9995 * unit:  # what would be rounded to 1,000 of a smaller one
            number = size / unit
            return f"{number:.3g} {name}" if number < 999.5 else f"{number:,.0f} {name}"  # 3 digits, or petabytes in TB
    return f"{size:.0f} bytes"
