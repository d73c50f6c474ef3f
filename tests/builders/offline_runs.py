"""Offline W&B runs, read back from their files."""

from __future__ import annotations

import json
import time

from tests.builders.stopped_runs import MOST


def read_back(run_dir):
    """Return what a finished run's file holds, once W&B's own process has written the last of it."""
    from google.protobuf.message import DecodeError

    deadline = time.monotonic() + MOST
    while True:
        try:
            contents = _read_back(run_dir)
            if contents["exit"] is not None or time.monotonic() > deadline:
                return contents
        except DecodeError:  # the last record is half written
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)


def _read_back(run_dir):
    """Return run, config, summary, keys, steps, exit code, artifacts and panels of the one offline run below a directory.

    `keys` are those of `run.log` and of the summary: what a user sees and makes panels of. `panels` are the keys of custom
    charts, `hidden` those without a panel by themselves.
    """
    from wandb.proto import wandb_internal_pb2 as pb

    [path] = run_dir.glob("wandb/offline-run-*/run-*.wandb")
    contents = {"config": {}, "summary": {}, "steps": 0, "exit": None, "run": None, "artifacts": []}
    contents |= {"keys": set(), "panels": {}, "hidden": set()}
    for payload in leveldb_records(path.read_bytes()):
        record = pb.Record.FromString(payload)
        match record.WhichOneof("record_type"):
            case "run":
                contents["run"] = record.run
                contents["config"] |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            case "config":
                for item in record.config.update:
                    path, value = [item.key] if item.key else list(item.nested_key), json.loads(item.value_json)
                    kind = contents["panels"] if path[:2] == ["_wandb", "visualize"] else contents["config"]
                    kind[path[-1] if kind is contents["panels"] else path[0]] = value
            case "summary":
                items = record.summary.update
                contents["summary"] |= {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
                contents["keys"] |= {item.key or item.nested_key[0] for item in items}
            case "history":
                contents["steps"] += 1
                contents["keys"] |= {item.key or item.nested_key[0] for item in record.history.item}
            case "metric":
                contents["hidden"] |= {record.metric.name} if record.metric.options.hidden else set()
            case "exit":
                contents["exit"] = record.exit.exit_code
            case "artifact":
                contents["artifacts"].append(record.artifact)
    return contents


def leveldb_records(data: bytes):
    """Yield the records of a LevelDB log: 32 KiB blocks of chunks (crc 4, length 2, type 1: full, first, middle, last)."""
    block, position, parts = 32768, 7, []  # W&B's own header of 7 bytes comes first
    while position + 7 <= len(data):
        left = block - position % block
        if left < 7:
            position += left
            continue
        length, kind = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
        if kind == 0:
            break
        parts.append(data[position + 7 : position + 7 + length])
        position += 7 + length
        if kind in (1, 4):
            yield b"".join(parts)
            parts = []
