"""What a report says of models that a server ran, and of two runs between which only the engine differs."""

from __future__ import annotations

from pathlib import PurePath

from bitsure.results import Provenance
from bitsure.results.run_files import ModelOrigin, ServedOrigin


def served_lines(provenance: Provenance | None) -> list[str]:
    """Return a line for each model of a run that a server ran: which one, and how far its answers differ from each other."""
    servers = (provenance.servers if provenance else None) or {}
    return [f"{name}: {_described(server)}" for name, server in servers.items()]


def engine_parity(first: Provenance | None, second: Provenance | None) -> str | None:
    """Return the sentence for two runs of one model by different engines; None where anything else differs, or none does."""
    if first is None or second is None or first.model is None or second.model is None or first.weights != second.weights:
        return None
    engines = [_engine(first), _engine(second)]
    if engines[0] == engines[1] or not _same_model(first.model, second.model):
        return None
    sentence = f"Only the engine differs: the first run's model was {engines[0]}, the second's {engines[1]}."
    if all(server.in_process for run in (first, second) if (server := _server(run))):
        return sentence
    return f"{sentence} The weights of a server are not seen: if they are the same, all differences are those of the engines."


def _described(server: ServedOrigin) -> str:
    apart = f"two equal requests differ by up to {server.nondeterminism:.2g} nats"
    if server.inconsistency is not None:
        apart += f", a token as it is read and as it is written by {server.inconsistency:.2g}"
    program = server.url if server.in_process else f"{server.url}, which does not show its weights"
    text = f"{server.name}, run by {program}; {apart}."
    if server.context is None:
        return text
    return f"{text} Its context has {server.context} tokens: the beginning of longer questions is cut there."


def _server(run: Provenance) -> ServedOrigin | None:
    """Return the program that ran the model that a run is about."""
    return (run.servers or {}).get("quantized" if run.weights else "full precision")


def _engine(run: Provenance) -> str:
    server = _server(run)
    assert run.model is not None  # as the caller has checked
    if server and not server.in_process:
        return f"run by {server.url} as {server.name}"
    return f"run here{f' by {server.url}' if server else ''} in {run.model.dtype}"


def _same_model(first: ModelOrigin, second: ModelOrigin) -> bool:
    """Return whether two runs read one model, as far as both read it: of a server's only tokenizer and config were read."""
    if first.fingerprint == second.fingerprint:
        return True
    files = [{PurePath(file).name: sha256 for file, sha256 in (model.files or {}).items()} for model in (first, second)]
    fewer, more = sorted(files, key=len)
    return bool(fewer) and fewer.items() <= more.items()
