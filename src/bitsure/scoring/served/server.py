"""A server that was asked and tested: which model it has, and what identifies it in the keys of its records."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bitsure.base.errors import UserError
from bitsure.base.files import hash_json, write_text
from bitsure.base.store import Store
from bitsure.config.server_settings import ServerAddress, ServerSettings
from bitsure.models.facts import context_length
from bitsure.models.locate import Source
from bitsure.results.run_files import ServedOrigin
from bitsure.scoring.served.completion_service import LONGEST_QUOTE
from bitsure.scoring.served.completions_client import CompletionsClient, NotFound
from bitsure.scoring.served.self_test import SelfTest, mean_distance

if TYPE_CHECKING:
    from pathlib import Path

    from bitsure.scoring.served.served_model import ServedModel

log = logging.getLogger(__name__)

KIND = "servers"  # of the store's entries
REFERENCE_FILE = "reference.json"
FORMAT = 2  # of the references in the store
SAME_MODEL = 2e-3  # nats that the mean of one model's reference may move by, beyond the mean move of equal requests
MOST_STATED = 30  # values of a server's list of models that are kept
TRIES = 3  # answers of which one has to be the model's


@dataclass(frozen=True, eq=False)
class Server:
    """A model of a server, tested."""

    settings: ServerSettings
    model: ServedModel
    test: SelfTest
    reference: list[float]
    """As in `SelfTestResult`."""
    spread: float
    """The largest mean difference between answers to the same request, nats."""
    origin: ServedOrigin
    """What stands in provenance.json."""
    context: int | None
    """The most tokens of a prompt and what is written after it; None where neither server nor config.json says."""
    key: Mapping[str, Any]
    """What identifies the model in the keys of its records."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Server) and self.key == other.key

    def __hash__(self) -> int:
        return hash(hash_json(self.key))

    def serves_another(self) -> float | None:
        """Return the mean move of the reference since the test, nats, if it is too far for one model; None if not."""
        change = float("inf")
        for _ in range(TRIES):
            change = min(change, mean_distance(self.reference, self.test.reference()))
            if change <= self.spread + SAME_MODEL:
                return None
        return change


def contact(address: ServerAddress, settings: ServerSettings, source: Source, store: Store) -> Server:
    """Ask a server which model it has, and test what it answers.

    Args:
        address: The server.
        settings: How it is asked.
        source: The model's tokenizer and config.
        store: Remembers what servers answered.

    Raises:
        UserError: If there is no server, it has another model, or it cannot be scored with.
    """
    client = CompletionsClient(address, settings.timeout)
    models = _models(client, settings)
    name = _name(client, models, source.settings.repo)
    entry: dict[str, Any] = next((model for model in models or () if model.get("id") == name), {})
    test = SelfTest(client, name, source.load_tokenizer(), settings.tolerance)
    result = test.run()
    spread = max(mean_distance(result.reference, answer) for answer in result.answers)
    key = _key(address, name, source, store, result.answers, spread)
    limits = [limit for limit in (entry.get("max_model_len"), context_length(source.path)) if isinstance(limit, int)]
    origin = ServedOrigin(
        url=address.url,
        name=name,
        asked_by=test.model.dialect.name,
        nondeterminism=result.nondeterminism,
        inconsistency=result.inconsistency,
        context=min(limits, default=None),
        reference=str(key["reference"]),
        stated=_stated(entry),
    )
    return Server(settings, test.model, test, result.reference, spread, origin, origin.context, key)


def _models(client: CompletionsClient, settings: ServerSettings) -> list[dict[str, Any]] | None:
    """Return the models that a server lists; None if it has no list."""
    try:
        listed = client.get("/models").get("data")
    except NotFound as error:
        if _answers(CompletionsClient(client.address, settings.timeout, "/v1")):
            section, url = client.address.section, client.address.url.rstrip("/")
            raise client.refusal(f"the address lacks its end. Give {section}.url={url}/v1") from error
        if client.address.served_name:
            return None
        raise
    return [model for model in listed if isinstance(model, dict)] if isinstance(listed, list) else None


def _answers(client: CompletionsClient) -> bool:
    try:
        return bool(client.get("/models"))
    except UserError:
        return False


def _name(client: CompletionsClient, models: list[dict[str, Any]] | None, repo: str | None) -> str:
    """Return what the server calls the model."""
    wanted, section = client.address.served_name, client.address.section
    if models is None:
        if wanted is None:
            raise client.refusal(f"the server does not list its models. Give {section}.served_name")
        return wanted
    names = [str(model.get("id")) for model in models]
    if wanted is None:
        wanted = repo if repo in names else names[0] if len(names) == 1 else None
    if wanted not in names or wanted is None:
        given = f"{section}.served_name={client.address.served_name} is not among them" if wanted else "which one is meant?"
        raise client.refusal(
            f"the server has the models {client.quoted(', '.join(names) or 'none')}: {given}. Give {section}.served_name"
        )
    return wanted


def _stated(entry: Mapping[str, Any]) -> dict[str, str | int | float | None]:
    """Return the plain values that a server lists of a model, so many and so long as a description needs."""
    cut = {field[:LONGEST_QUOTE]: value[:LONGEST_QUOTE] if isinstance(value, str) else value for field, value in entry.items()}
    plain = [(field, value) for field, value in cut.items() if isinstance(value, str | int | float | None)]
    return dict(plain[:MOST_STATED])


def _key(
    address: ServerAddress, name: str, source: Source, store: Store, answers: Sequence[list[float]], spread: float
) -> dict[str, Any]:
    """Return what identifies the model in the store: address, name, and the reference of the first time that it was asked.

    A server may have another model tomorrow under the same name. Its reference is then another, and so are its records. Of
    several models that are close enough the closest is taken.
    """
    named = {"url": address.url.rstrip("/"), "name": name, "tokenizer": source.fingerprint}
    content = {"reference": answers[0], "spread": spread}

    def fill(entry: Path) -> None:
        write_text(entry / REFERENCE_FILE, json.dumps(content))

    def stored(entry: Path) -> dict[str, Any]:
        return dict(json.loads((entry / REFERENCE_FILE).read_text(encoding="utf-8")))

    closest: tuple[float, list[float]] | None = None
    for number in itertools.count():
        made_from = {**named, "format": FORMAT, "number": number}
        entry = store.find(KIND, made_from, to_read=True)
        if entry is None and closest:
            break
        if entry is None and number:
            log.warning("%s: %s is another model now than when it was asked before; it is scored anew", address.given, name)
        known = stored(entry or store.ensure(KIND, made_from, fill))  # which another process may have filled meanwhile
        apart = min(mean_distance(known["reference"], answer) for answer in answers)
        if apart <= min(spread, known["spread"]) + SAME_MODEL and (closest is None or apart < closest[0]):
            closest = apart, known["reference"]
    assert closest is not None  # the last one is the model's own
    return {**named, "reference": hash_json(closest[1])[:24]}
