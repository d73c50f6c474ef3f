"""Models that a server runs: where they are asked for, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from bitsure.base.errors import UserError, at_least

KEY_VARIABLE = "BITSURE_SERVER_KEY"  # of the environment: the key that servers ask for


class Addressed(Protocol):
    """Settings that may name a model of a server."""

    url: str | None
    served_name: str | None


@dataclass(frozen=True)
class ServerAddress:
    """A model of a server that speaks OpenAI's completions protocol.

    Raises:
        UserError: If the address is none, or holds what is secret.
    """

    section: str
    """The section of the config that names it, `model` or `quant`."""
    url: str
    """The address of the protocol, such as http://host:8000/v1."""
    served_name: str | None
    """What the server calls the model; None: by the repository's name, or by the only one there is."""

    @classmethod
    def of(cls, section: str, settings: Addressed) -> ServerAddress | None:
        """Return the server that a section's settings name; None where they name none."""
        return None if settings.url is None else cls(section, settings.url, settings.served_name)

    def __post_init__(self) -> None:
        if set(self.url) & set("@?#"):  # which the message must not repeat
            raise UserError(
                f"{self.section}.url: an address with a user, a password or a key in it would stand in files and logs. Leave "
                f"them out, and put the server's key into the environment variable {KEY_VARIABLE}."
            )
        if not _is_address(self.url):
            raise UserError(f"{self.section}.url={self.url}: an address such as http://host:8000/v1 is needed.")

    @property
    def given(self) -> str:
        """The setting as it is typed, for messages."""
        return f"{self.section}.url={self.url}"


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a bracket that does not close, or a port that is no number
        return False


@dataclass
class ServerSettings:
    """How servers are asked; log-probabilities do not depend on it."""

    concurrency: int = 16  # requests that a server has at one time
    prompts: int = 4  # questions of a request
    timeout: float = 300.0  # seconds that a server may take for a request
    tolerance: float = 0.2  # the largest difference between two answers of a server to the same question, nats; more is refused

    def __post_init__(self) -> None:
        at_least("server.concurrency", self.concurrency, 1)
        at_least("server.prompts", self.prompts, 1)
        for key in ("timeout", "tolerance"):
            if not getattr(self, key) > 0:
                raise UserError(f"server.{key}={getattr(self, key)}: a number above 0.")
