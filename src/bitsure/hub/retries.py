"""Asking the hub: whether it answers at all, and again while it is busy."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from bitsure.hub.failures import http_status, is_hub_error, retry_after
from bitsure.hub.offline import is_offline

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

BUSY = (429, 502, 503, 504)  # too many requests, and servers that are out of order for a moment
TRIES = 5
LONGEST_WAIT = 60.0  # seconds


def retry_while_busy(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call, and call again while the hub is busy.

    For calls of `HfApi`, `snapshot_download` and `datasets`. `hf_hub_download` does the same by itself.
    """
    for attempt in range(1, TRIES):
        try:
            return call(*args, **kwargs)
        except Exception as error:
            if not is_hub_error(error) or (status := http_status(error)) not in BUSY:
                raise
            seconds = min(retry_after(error, default=2.0**attempt), LONGEST_WAIT)
            log.warning("the hub answers %s: trying again in %.0f s", status, seconds)
            time.sleep(seconds)
    return call(*args, **kwargs)


def check_reachable() -> None:
    """Raise the client's error at once if the hub does not answer; the client itself tries for half a minute."""
    from huggingface_hub import constants, get_session

    if not is_offline():
        get_session().head(constants.ENDPOINT, timeout=5)
