"""A server on the loopback that speaks as much of Weights & Biases' protocol as taking in a run needs."""

from __future__ import annotations

import json
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

from tests.builders.stopped_runs import MOST

USER = {"viewer": {"id": "u", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}}
QUERIES = {
    "ServerFeaturesQuery": {"serverInfo": {"features": []}},
    "ArtifactType": {"project": None},
    "Viewer": USER,
    "GetDefaultEntity": USER,
    "GetProjects": {"models": {"edges": [], "pageInfo": {"hasNextPage": False, "endCursor": None}}},
}
PROJECT = {"id": "p", "internalId": "UHJvamVjdEludGVybmFsSWQ6MQ==", "name": "bitsure", "entity": {"name": "me"}}
COLLECTION = {"__typename": "ArtifactSequence", "id": "c", "name": "a", "project": PROJECT}
QUERIES["ProjectInternalId"] = {"project": PROJECT}
QUERIES["ArtifactByID"] = {
    "artifact": {
        **dict.fromkeys(("description", "metadata", "historyStep", "commitHash", "updatedAt")),
        **{"id": "a", "artifactSequence": COLLECTION, "versionIndex": 0, "artifactType": {"name": "checkpoint"}, "aliases": []},
        **{"ttlDurationSeconds": -2, "ttlIsInherited": True, "tags": [], "state": "COMMITTED", "size": 1, "digest": "x"},
        **{"fileCount": 1, "createdAt": "2026-01-01T00:00:00"},
    }
}
FIELDS = {"UpsertView2": "upsertView", "CreateProject": "result"}  # what an operation asks for, where its name does not tell


@dataclass
class Server:
    """What it was given of runs. Files are not told apart by runs."""

    url: str = ""
    runs: dict[str, dict] = field(default_factory=dict)  # id → what was said of it first
    rows: dict[str, list[dict]] = field(default_factory=dict)  # id → what was logged, a row a step
    exits: dict[str, int] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)  # of runs and of artifacts
    artifacts: list[tuple[str, str]] = field(default_factory=list)  # (type, name), when all of it was there
    views: list[dict] = field(default_factory=list)  # workspaces and reports
    charts: dict[str, dict] = field(default_factory=dict)  # id of a preset → its specification

    def environment(self, folder: Path) -> dict[str, str]:
        """What has W&B's client send to it; folder: for its settings."""
        places = {f"WANDB_{what}_DIR": str(folder / "of-wandb") for what in ("CONFIG", "CACHE", "DATA")}
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": "k" * 40, **places}

    def answer(self, operation: str, given: dict) -> dict:
        """The answer to an operation of GraphQL that changes something."""
        match operation:
            case "UpsertBucket":
                self.runs.setdefault(given["name"], given)
                project = {"id": "p", "name": given["project"], "entity": {"id": "e", "name": "me"}}
                run = {"id": "r", "name": given["name"], "displayName": given["displayName"], "description": ""}
                run |= {"config": "{}", "sweepName": None, "project": project, "historyLineCount": 0}
                return {"bucket": run, "inserted": True}
            case "CreateRunFiles":
                files = [{"name": name, "uploadUrl": self._place(name)} for name in given["files"]]
                return {"runID": "r", "uploadHeaders": [], "files": files}
            case "CreateArtifact":
                name = f"{given['input']['artifactTypeName']}/{given['input']['artifactCollectionName']}"
                return {"artifact": {"id": name, "state": "PENDING", "artifactSequence": {"latestArtifact": None}}}
            case "CreateArtifactManifest":
                file = {"id": "f", "uploadUrl": self._place("manifest"), "uploadHeaders": []}
                return {"artifactManifest": {"id": given["artifactID"], "file": file}}
            case "CreateArtifactFiles":
                asked = given["input"]["artifactFiles"]
                same = {"id": "f", "uploadHeaders": [], "storagePath": "x", "uploadMultipartUrls": None}
                files = [
                    same
                    | {"name": one["name"], "displayName": one["name"], "uploadUrl": self._place(one["name"])}
                    | {"artifact": {"id": one["artifactID"]}}
                    for one in asked
                ]
                return {"files": {"edges": [{"node": file} for file in files]}}
            case "UpsertView2" | "upsertView":
                self.views.append(given)
                project = {"id": "p", "name": given["projectName"], "entityName": given["entityName"]}
                dates = dict.fromkeys(("createdAt", "updatedAt"), "2026-01-01T00:00:00")
                return {"view": given | dates | {"id": "VmlldzoxMjM=", "project": project}, "inserted": True}
            case "CreateCustomChart":
                name = f"{given['entity']}/{given['chartName']}"
                self.charts[name] = json.loads(given["spec"])
                return {"chart": {"id": name}}
            case "CommitArtifact":
                self.artifacts.append(tuple(given["artifactID"].split("/", 1)))
                return {"artifact": {"id": given["artifactID"], "digest": "x"}}
        return {}

    def stream(self, run: str, sent: dict) -> None:
        for row in sent.get("files", {}).get("wandb-history.jsonl", {}).get("content", ()):
            self.rows.setdefault(run, []).append(json.loads(row))
        if sent.get("complete"):
            self.exits[run] = sent["exitcode"]

    def _place(self, name: str) -> str:
        return f"{self.url}/upload/{name}"


@contextmanager
def serve():
    """Yields a running Server."""
    server = Server()

    class Handler(_Handler):
        given = server

    listener = _Listener(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{listener.server_port}"
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        listener.shutdown()
        listener.server_close()


class _Listener(ThreadingHTTPServer):
    request_queue_size = 128  # its client opens many connections at once
    daemon_threads = True

    def handle_error(self, request, client_address):
        """Its client breaks off connections that it kept."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    given: Server
    timeout = MOST

    def do_GET(self):
        self._send({})

    def do_PUT(self):
        self.given.files[unquote(self.path.removeprefix("/upload/"))] = self._body()
        self._send({})

    def do_POST(self):
        body = self._body()
        if not self.path.endswith(("/graphql", "/file_stream")):  # what the client measures of itself
            return self._send({})
        said = json.loads(body)
        if self.path.endswith("/file_stream"):
            self.given.stream(self.path.split("/")[-2], said)
            return self._send({})
        name = re.match(r"\s*(?:query|mutation)\s+(\w+)", said["query"])[1]
        field_ = FIELDS.get(name, name[0].lower() + name[1:])
        return self._send({"data": QUERIES.get(name) or {field_: self.given.answer(name, said.get("variables") or {})}})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while length := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(length))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(self, answer: dict) -> None:
        text = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *given):
        pass
