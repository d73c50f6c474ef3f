"""The errors of hf_xet, with which the hub's client fetches large files.

Nearly all of them are a RuntimeError, so only its message says whether the network, the disk or a mistake was the reason.
"""

from __future__ import annotations

import re

NETWORK = re.compile(r"\b(?:CAS Client Error: Request (?:middleware )?error|Network error|connection error): ")
STATUS = re.compile(r"\bHTTP status (?:client|server) error \((\d{3})\b")
SYSTEM = re.compile(r"\bIO [Ee]rror: .*\(os error (\d+)\)")


def is_xet_network_error(error: BaseException) -> bool:
    """Return whether hf_xet could not reach the hub's storage, or was refused or cut off by it."""
    return type(error).__module__ == "hf_xet" or (type(error) is RuntimeError and bool(NETWORK.search(str(error))))


def xet_status(error: BaseException) -> int | None:
    """Return the HTTP status that an error of hf_xet names; None if it names none."""
    return int(match[1]) if is_xet_network_error(error) and (match := STATUS.search(str(error))) else None


def xet_errno(error: BaseException) -> int | None:
    """Return the number of the operating system's error that an error of hf_xet names; None if it names none."""
    return int(match[1]) if type(error) is RuntimeError and (match := SYSTEM.search(str(error))) else None
