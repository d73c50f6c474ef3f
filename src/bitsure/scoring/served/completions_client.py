"""Requests to a server that speaks OpenAI's completions protocol: repeated where it is busy, refused in words otherwise."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from typing_extensions import override

from bitsure.base.errors import UserError
from bitsure.config.server_settings import KEY_VARIABLE, ServerAddress
from bitsure.scoring.served.completion_service import CompletionService

if TYPE_CHECKING:
    import httpx

BUSY = (408, 429, 500, 502, 503, 504)  # statuses after which the same request may succeed
WAITS = (1, 2, 4, 8, 16, 32)  # seconds before each new try
MOST_TIMEOUTS = 2  # of one request
LONGEST_WAIT = 60.0  # seconds, whatever the server asks for
CONNECT_SECONDS = 10.0
MOST_BYTES = 2**28  # of an answer
KEPT = ": what was scored is kept, but for the last answers"


class NotFound(UserError):
    """The server has no such address."""


class CompletionsClient(CompletionService):
    """Sends requests to one server.

    The key of the environment variable BITSURE_SERVER_KEY goes with each request and stands in no message.

    Args:
        address: The server.
        timeout: Seconds that it may take for a request.
        below: What is appended to the server's address.
    """

    def __init__(self, address: ServerAddress, timeout: float, below: str = "") -> None:
        import httpx

        super().__init__(address.given)
        self.address, self._timeout = address, timeout
        self._key = os.environ.get(KEY_VARIABLE, "").strip()
        if not (self._key.isascii() and self._key.isprintable()):
            raise UserError(
                f"{KEY_VARIABLE}: the server's key has characters that no request can carry. A key of one line is needed, with "
                "letters, digits and signs of ASCII."
            )
        self._http = httpx.Client(
            base_url=address.url.rstrip("/") + below,
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=httpx.Timeout(timeout, connect=CONNECT_SECONDS, pool=None),
            limits=httpx.Limits(max_connections=None),
            verify=urlsplit(address.url).scheme == "https",  # certificates take long to load, and plain HTTP has none
        )

    def get(self, path: str) -> dict[str, Any]:
        """Return the JSON object at an address; a server that is not there is refused at once, a busy one is asked again."""
        return self._ask("GET", path, None)

    @override
    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Return the JSON object that the server answers; a request that fails is repeated, for about a minute.

        Args:
            path: The address, below the server's own.
            body: The request.

        Raises:
            UserError: If the server cannot be reached, refuses the request or answers no JSON object. NotFound if it has no
                such address.
        """
        return self._ask("POST", path, body)

    def _ask(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        import httpx

        timeouts = 0
        for tries, wait in enumerate((*WAITS, None)):
            seconds = float(wait or 0)
            try:
                with self._http.stream(method, path, json=body) as reply:
                    raw = self._read(reply)
            except (httpx.TransportError, httpx.DecodingError) as error:
                timeouts += isinstance(error, httpx.ReadTimeout)
                if body is None or wait is None or timeouts >= MOST_TIMEOUTS or self.stopped.is_set():
                    raise self._unreachable(error, tries, scores=body is not None) from error
            else:
                if reply.status_code not in BUSY:
                    return self._content(reply, raw)
                if wait is None or self.stopped.is_set():
                    raise self._busy(reply, raw, tries, scores=body is not None)
                seconds = max(seconds, _asked_to_wait(reply))
            self.stopped.wait(seconds)
        raise AssertionError("the last try returns or raises")

    def _read(self, reply: httpx.Response) -> bytes:
        """Return the bytes of an answer. Raises UserError if they are too many to be one."""
        raw = bytearray()
        for part in reply.iter_bytes():
            raw += part
            if len(raw) > MOST_BYTES:
                raise self.refusal(f"the answer has more than {MOST_BYTES} bytes. Ask for less at one time (server.prompts=1)")
        return bytes(raw)

    def _unreachable(self, error: httpx.RequestError, tries: int, scores: bool) -> UserError:
        import httpx

        if isinstance(error, httpx.ReadTimeout):
            fewer = ", or with fewer questions at one time (server.prompts, server.concurrency)" if scores else ""
            return self.refusal(
                f"the server gives no answer within server.timeout={self._timeout:g} seconds (tries: {tries + 1}). Run the "
                f"same command again with a larger server.timeout{fewer}{KEPT * scores}"
            )
        reason = self.quoted(str(error) or type(error).__name__)
        if tries:
            return self.refusal(
                f"the server answers no more, after {tries + 1} tries ({reason}). Run the same command again when it is back"
                f"{KEPT * scores}"
            )
        return self.refusal(f"no server answers ({reason}). Start it, or give its address")

    def _busy(self, reply: httpx.Response, raw: bytes, tries: int, scores: bool) -> UserError:
        fewer = ", with fewer requests at one time (server.concurrency)" if scores else ""
        return self.refusal(
            f"the server is too busy or fails (HTTP {reply.status_code}), after {tries + 1} tries: {self._words(raw)}. Run the "
            f"same command again later{fewer}{KEPT * scores}"
        )

    def _words(self, raw: bytes) -> str:
        """Return what a server says is wrong."""
        return self.quoted(_error_message(_parsed(raw)) or raw.decode(errors="replace"))

    def _content(self, reply: httpx.Response, raw: bytes) -> dict[str, Any]:
        status = reply.status_code
        if status in (401, 403):
            kept = "is not accepted" if self._key else "is not set"
            raise self.refusal(
                f"the server refuses access (HTTP {status}). It wants a key in the environment variable {KEY_VARIABLE}, "
                f"which {kept}"
            )
        if 300 <= status < 400:
            raise self.refusal(f"the server sends requests elsewhere (HTTP {status}). Give the address that it names")
        content = _parsed(raw)
        if status == 404:
            raise NotFound(self.refusal(f"the server has nothing at {reply.request.url.path} (HTTP 404)"))
        text = raw.decode(errors="replace")
        if status >= 400:
            raise self.refusal(f"the server refuses the request (HTTP {status}): {self._words(raw)}")
        if not isinstance(content, dict):
            kind = self.quoted(reply.headers.get("Content-Type", "no type"))
            raise self.refusal(
                f"the answer is {kind} and no JSON object: {self.quoted(text)}. The address of OpenAI's completions protocol "
                "is needed, which mostly ends in /v1"
            )
        return content

    @override
    def quoted(self, text: str) -> str:
        """Return a server's words for a message, cut, and without the key."""
        return super().quoted(text.replace(self._key, "…") if self._key else text)


def _parsed(raw: bytes) -> object:
    """Return the content of JSON; None for what is none."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


def _asked_to_wait(reply: httpx.Response) -> float:
    """Return the seconds that a busy server asks to wait for; 0 where it says none."""
    try:
        return min(LONGEST_WAIT, float(reply.headers.get("Retry-After", 0)))
    except ValueError:  # a date
        return 0.0


def _error_message(content: object) -> str | None:
    """Return what is wrong, as servers of this protocol say it; None where they say it otherwise."""
    match content:
        case {"error": {"message": str(message)}} | {"message": str(message)} | {"error": str(message)}:
            return message
    return None
