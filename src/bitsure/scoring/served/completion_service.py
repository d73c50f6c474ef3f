"""The interface of what answers requests for completions: a server, or vLLM in this process."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import Any

from bitsure.base.errors import UserError
from bitsure.base.plain_text import without_controls

LONGEST_QUOTE = 300  # characters of a service's own words


class CompletionService(ABC):
    """Answers requests of OpenAI's completions protocol.

    Args:
        given: The setting that names it, as it is typed, for messages.
    """

    noun = "the server"
    """What messages call it."""
    reads_more = "Start it with the whole context"
    """What lets it read longer prompts, for messages."""
    tolerance = "server.tolerance"
    """The setting of how far equal answers may differ, for messages."""
    agrees_more = "Give the server fewer requests at one time (server.concurrency=1), or a larger tolerance"
    """What makes equal answers differ less, or lets them, for messages."""

    def __init__(self, given: str) -> None:
        self.given = given
        self.stopped = threading.Event()
        """Set it to let no request be tried again."""

    @abstractmethod
    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Return the JSON object that answers a request.

        Args:
            path: The address, below the service's own.
            body: The request.

        Raises:
            UserError: If there is no such answer.
        """

    def refusal(self, reason: str) -> UserError:
        """Return the error that says why this service is not scored with.

        Args:
            reason: A sentence without its full stop; "the server" at its beginning becomes what this service is.
        """
        about_it = reason.startswith("the server")
        return UserError(f"{self.given}: {self.noun + reason.removeprefix('the server') if about_it else reason}.")

    def quoted(self, text: str) -> str:
        """Return a service's own words for a message, cut."""
        words = " ".join(without_controls(text).split())
        return repr(words if len(words) <= LONGEST_QUOTE else f"{words[:LONGEST_QUOTE]}…")
