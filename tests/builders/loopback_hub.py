"""A hub on the loopback that speaks as much of the Hugging Face hub's protocol as downloading needs."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from tests.builders.stopped_runs import MOST

LARGE = (".safetensors", ".bin", ".parquet", ".gz")  # are redirected to another place, as files in large-file storage are


@dataclass
class Repository:
    folder: Path
    commit: str
    gated: bool = False
    branches: tuple[str, ...] = ("main",)

    ref: str | None = None  # beside the branches of a repository, with commits of its own

    @property
    def files(self) -> dict[str, bytes]:
        return {
            str(file.relative_to(self.folder)): file.read_bytes() for file in sorted(self.folder.rglob("*")) if file.is_file()
        }


@dataclass
class Hub:
    """What is served, how it misbehaves, and what was asked for."""

    url: str = ""
    storage: str = ""
    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)  # by kind (models, datasets) and name
    busy: int = 0  # answers that are 429 before others
    breaks: int = 0  # transfers of large files that end halfway
    members: tuple[str, ...] = ()  # tokens with access to what is gated
    asked: list[tuple[str, str]] = field(default_factory=list)  # (method, path)
    ranges: list[str] = field(default_factory=list)
    sent: Counter = field(default_factory=Counter)  # bytes by the name of the large file
    leaked: list[str] = field(default_factory=list)  # tokens that were sent to the storage

    def add(self, name: str, folder: Path, kind: str = "models", **settings) -> Repository:
        """ref: the folder is what a repository has on that, beside what it has on its branches."""
        key = name + (f"@{settings['ref']}" if settings.get("ref") else "")
        commit = hashlib.sha1(f"{kind} {key}".encode()).hexdigest()
        self.repositories[kind, key] = Repository(Path(folder), commit, **settings)
        return self.repositories[kind, key]


@contextmanager
def serve():
    """Yields a running Hub; large files come from a second server, as they do from the hub's storage."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), handler) for _ in range(2)]
    hub.url, hub.storage = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    threads = [threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
        for thread in threads:
            thread.join(timeout=MOST)


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"
    timeout = MOST

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        self._answer()

    def do_POST(self):
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer()

    def _answer(self):
        url = urlsplit(self.path)
        self.hub.asked.append((self.command, unquote(url.path)))
        parts = [unquote(part) for part in url.path.strip("/").split("/")]
        if parts == [""]:
            return self._send(200, b"a hub")
        if self.hub.busy:
            self.hub.busy -= 1
            return self._send(429, b"slow down", {"Retry-After": "0"})
        match parts:
            case ["api", kind, org, name, *rest]:
                return self._api(kind, f"{org}/{name}", rest)
            case ["api", "models"]:
                author = parse_qs(url.query).get("author", [""])[0]
                names = [name for kind, name in self.hub.repositories if kind == "models" and name.startswith(f"{author}/")]
                return self._json([{"id": name, "modelId": name} for name in names])
            case ["datasets", org, name, "resolve", revision, *path]:
                return self._resolve("datasets", f"{org}/{name}", revision, "/".join(path))
            case ["storage", commit, *path]:
                repository = next(one for one in self.hub.repositories.values() if one.commit == commit)
                return self._storage(repository.files["/".join(path)], path[-1])
            case [org, name, "resolve", revision, *path]:
                return self._resolve("models", f"{org}/{name}", revision, "/".join(path))
        return self._send(404, b"")

    def _repository(self, kind: str, name: str, revision: str = "main") -> Repository | None:
        """None after an answer that says why not."""
        beside = [one for (of, key), one in self.hub.repositories.items() if of == kind and key.startswith(f"{name}@")]
        repository = next((one for one in beside if revision in (one.ref, one.commit)), self.hub.repositories.get((kind, name)))
        if repository is None:  # the hub does not tell strangers what there is
            self._error(404 if self._token() else 401, "RepoNotFound", "Repository not found")
        elif revision not in (*repository.branches, repository.ref, repository.commit):
            self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        else:
            return repository
        return None

    def _api(self, kind: str, name: str, rest: list[str]) -> None:
        revision = rest[1] if len(rest) > 1 else "main"
        if (repository := self._repository(kind, name, revision)) is None:
            return None
        files = [self._entry(path, content) for path, content in repository.files.items()]
        match rest:
            case [] | ["revision", _]:
                siblings = [{"rfilename": one["path"], "size": one["size"], "blobId": one["oid"]} for one in files]
                info = {"id": name, "sha": repository.commit, "private": False, "gated": repository.gated, "tags": []}
                return self._json(info | {"downloads": 0, "likes": 0, "siblings": siblings})
            case ["refs"]:
                refs = [
                    {"name": one, "ref": f"refs/heads/{one}", "targetCommit": repository.commit} for one in repository.branches
                ]
                return self._json({"branches": refs, "tags": [], "converts": []})
            case ["tree", _, *folder]:
                prefix = "/".join([*folder, ""]) if folder else ""
                inside = [one for one in files if one["path"].startswith(prefix)]
                if "recursive=true" not in self.path.lower():
                    folders = {one["path"][len(prefix) :].split("/")[0] for one in inside if "/" in one["path"][len(prefix) :]}
                    inside = [one for one in inside if "/" not in one["path"][len(prefix) :]]
                    inside += [
                        {"type": "directory", "oid": "0" * 40, "size": 0, "path": prefix + one} for one in sorted(folders)
                    ]
                if not inside:
                    return self._error(404, "EntryNotFound", "no such folder")
                return self._json(inside)
            case ["paths-info", _]:
                wanted = self._wanted()
                folders = {"/".join(one["path"].split("/")[:-1]) for one in files}
                found = [one for one in files if one["path"] in wanted]
                found += [{"type": "directory", "oid": "0" * 40, "size": 0, "path": one} for one in wanted if one in folders]
                return self._json(found)
        return self._send(404, b"")

    def _wanted(self) -> list[str]:
        text = self.body.decode()
        given = json.loads(text)["paths"] if text.startswith("{") else parse_qs(text)["paths"]
        return given if isinstance(given, list) else [given]

    @staticmethod
    def _entry(path: str, content: bytes) -> dict:
        entry = {"type": "file", "oid": hashlib.sha1(content).hexdigest(), "size": len(content), "path": path}
        if path.endswith(LARGE):
            entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
        return entry

    def _resolve(self, kind: str, name: str, revision: str, path: str) -> None:
        if (repository := self._repository(kind, name, revision)) is None:
            return None
        if repository.gated and self._token() not in self.hub.members:
            return self._error(403 if self._token() else 401, "GatedRepo", f"Access to model {name} is restricted")
        content = repository.files.get(path)
        if content is None:
            return self._error(404, "EntryNotFound", "Entry not found")
        headers = {"X-Repo-Commit": repository.commit, "Accept-Ranges": "bytes"}
        if not path.endswith(LARGE):
            return self._send(200, content, headers | {"ETag": f'"{hashlib.sha1(content).hexdigest()}"'})
        headers |= {"X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Linked-Size": str(len(content))}
        return self._send(302, b"", headers | {"Location": f"{self.hub.storage}/storage/{repository.commit}/{path}"})

    def _storage(self, content: bytes, name: str) -> None:
        """With ranges; a transfer that breaks sends half of what is left and hangs up."""
        start = 0
        self.hub.leaked += [token] if (token := self._token()) else []
        if given := self.headers.get("Range"):
            self.hub.ranges.append(given)
            start = int(given.removeprefix("bytes=").split("-")[0])
        part = content[start:]
        self.send_response(206 if given else 200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(part)))
        if given:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.hub.breaks:
            self.hub.breaks -= 1
            part, self.close_connection = part[: len(part) // 2], True
        self.wfile.write(part)
        self.hub.sent[name] += len(part)

    def _token(self) -> str | None:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None

    def _json(self, value) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _error(self, status: int, code: str, message: str) -> None:
        self._send(status, json.dumps({"error": message}).encode(), {"X-Error-Code": code, "X-Error-Message": message})

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
