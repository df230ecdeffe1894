"""A stand-in for the hub: the part of its HTTP interface that huggingface_hub calls, on this machine, in a thread.

Commits, branches, Git LFS uploads (in one piece or in parts), downloads and the hub's error codes. Files whose names
end in :data:`LFS_SUFFIXES` are uploaded by Git LFS unless ``regular_only``; the rest travels inside the commit.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import huggingface_hub.constants
import pytest
import yaml

__all__ = ["TOKEN", "Hub", "Repository", "connect", "running_hub"]

TOKEN = "hf_of_the_tests"
LICENCES = ("unknown", "cc-by-4.0", "apache-2.0")
LFS_SUFFIXES = (".h5", ".safetensors")
_PARTS = 1 << 16  # bytes of one part of an upload in parts

Files = dict[str, bytes]


@dataclass
class Repository:
    """A repository: the files of each commit, and the commit of each branch."""

    private: bool = False
    commits: dict[str, Files] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, changes: Files) -> str:
        files = {**self.files(branch), **changes}
        parts = [name.encode() + b"\0" + files[name] for name in sorted(files)]
        parts.append(self.branches.get(branch, "").encode())
        commit = hashlib.sha1(b"\0\0".join(parts)).hexdigest()
        self.commits[commit], self.branches[branch] = files, commit
        return commit

    def resolve(self, revision: str) -> str | None:
        return self.branches.get(revision) or (revision if revision in self.commits else None)

    def files(self, revision: str = "main") -> Files:
        return self.commits.get(self.resolve(revision) or "", {})


class Hub(ThreadingHTTPServer):
    """The server and what it holds.

    Attributes:
        repositories: by type and name.
        requests: method and path of every request.
        regular_only: put every file into the commit itself.
        read_only: refuse every change with status 403.
        broken: answer everything with status 500.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.requests: list[str] = []
        self.blobs: dict[str, bytes] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.regular_only = self.read_only = self.broken = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def add(self, kind: str, name: str, files: Files, *, private: bool = False) -> str:
        """Make a repository with these files; its commit."""
        repository = self.repositories.setdefault((kind, name), Repository(private))
        return repository.commit("main", files)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no error."""


class _RefusedError(Exception):
    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        """Print nothing."""

    def handle_one(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.requests.append(f"{self.command} {path}")
        try:
            if self.server.broken:
                raise _RefusedError(500)
            self.answer(path, body)
        except _RefusedError as refused:
            headers = {"X-Error-Code": refused.code, "X-Error-Message": refused.message}
            self.send(refused.status, b"", {name: value for name, value in headers.items() if value})

    do_GET = do_HEAD = do_POST = do_PUT = handle_one  # noqa: N815

    def send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def send_json(self, content: object) -> None:
        self.send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    @property
    def known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def repository(self, kind: str, name: str) -> Repository:
        found = self.server.repositories.get((kind, name))
        if found is None or (found.private and not self.known):
            raise _RefusedError(404 if self.known else 401, "RepoNotFound", "Repository not found")
        return found

    def may_write(self) -> None:
        if not self.known:
            raise _RefusedError(401, "", "Invalid username or password.")
        if self.server.read_only:
            raise _RefusedError(403, "", "Forbidden: you must use a write token.")

    # ---- requests

    def answer(self, path: str, body: bytes) -> None:
        name = r"([\w.-]+/[\w.-]+)"
        routes = (
            (r"POST /api/repos/create", self.create),
            (r"POST /api/validate-yaml", self.validate),
            (rf"POST /api/(model|dataset)s/{name}/preupload/(.+)", self.preupload),
            (rf"POST /api/(model|dataset)s/{name}/commit/(.+)", self.commit),
            (rf"POST /api/(model|dataset)s/{name}/branch/(.+)", self.branch),
            (rf"GET /api/(model|dataset)s/{name}(?:/revision/(.+))?", self.info),
            (rf"GET /api/(model|dataset)s/{name}/tree/(.+)", self.tree),
            (rf"POST /(datasets/)?{name}\.git/info/lfs/objects/batch", self.batch),
            (r"PUT /lfs/([0-9a-f]+)(?:/(\d+))?", self.store),
            (r"POST /lfs/([0-9a-f]+)/complete", self.complete),
            (rf"(?:GET|HEAD) /(datasets/)?{name}/resolve/([^/]+)/(.+)", self.download),
        )
        for pattern, method in routes:
            if found := re.fullmatch(pattern, f"{self.command} {path}"):
                method(*found.groups(), body)
                return
        raise _RefusedError(404, "", f"unknown to this stand-in: {self.command} {path}")

    def create(self, body: bytes) -> None:
        self.may_write()
        wanted = json.loads(body)
        kind, user = wanted.get("type") or "model", wanted.get("organization") or "user"
        name = wanted["name"] if "/" in wanted["name"] else f"{user}/{wanted['name']}"
        if (kind, name) in self.server.repositories:
            raise _RefusedError(409, "", "You already created this repo")
        private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
        self.server.repositories[kind, name] = Repository(private)
        self.server.repositories[kind, name].commit("main", {".gitattributes": b"*.h5 filter=lfs\n"})
        self.send_json({"url": f"{self.server.url}/{'datasets/' * (kind == 'dataset')}{name}"})

    def validate(self, body: bytes) -> None:
        text = json.loads(body)["content"]
        block = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
        licence = yaml.safe_load(block[1]).get("license") if block else None
        errors = [] if licence in (None, *LICENCES) else [f'"license" must be one of {", ".join(LICENCES)}']
        said = {"errors": [{"message": message} for message in errors], "warnings": []}
        content = json.dumps(said).encode()
        self.send(400 if errors else 200, content, {"Content-Type": "application/json"})

    def preupload(self, kind: str, name: str, revision: str, body: bytes) -> None:
        self.may_write()
        there = self.repository(kind, name).files(revision)

        def planned(path: str) -> dict[str, object]:
            by_lfs = path.endswith(LFS_SUFFIXES) and not self.server.regular_only
            oid = _oid(path, there[path], by_lfs) if path in there else None
            return {"path": path, "uploadMode": "lfs" if by_lfs else "regular", "shouldIgnore": False, "oid": oid}

        self.send_json({"files": [planned(file["path"]) for file in json.loads(body)["files"]]})

    def commit(self, kind: str, name: str, revision: str, body: bytes) -> None:
        self.may_write()
        changes: Files = {}
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                changes[value["path"]] = base64.b64decode(value["content"])
            if entry["key"] == "lfsFile":
                changes[value["path"]] = self.server.blobs[value["oid"]]
        commit = self.repository(kind, name).commit(revision, changes)
        self.send_json({"success": True, "commitOid": commit, "commitUrl": f"{self.server.url}/{name}/commit/{commit}"})

    def branch(self, kind: str, name: str, branch: str, body: bytes) -> None:
        del body
        self.may_write()
        repository = self.repository(kind, name)
        if branch in repository.branches:
            raise _RefusedError(409, "", "Reference already exists")
        repository.branches[branch] = repository.branches["main"]
        self.send_json({})

    def info(self, kind: str, name: str, revision: str | None, body: bytes) -> None:
        del body
        repository, commit = self._at(kind, name, revision or "main")
        siblings = [{"rfilename": file} for file in repository.files(commit)]
        self.send_json({"id": name, "sha": commit, "private": repository.private, "siblings": siblings, "tags": []})

    def tree(self, kind: str, name: str, revision: str, body: bytes) -> None:
        del body
        repository, commit = self._at(kind, name, revision)
        self.send_json(
            [
                {"type": "file", "path": file, "size": len(content), "oid": _oid(file, content, by_lfs=False)}
                for file, content in repository.files(commit).items()
            ]
        )

    def _at(self, kind: str, name: str, revision: str) -> tuple[Repository, str]:
        repository = self.repository(kind, name)
        commit = repository.resolve(revision)
        if commit is None:
            raise _RefusedError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repository, commit

    def batch(self, prefix: str | None, name: str, body: bytes) -> None:
        self.may_write()
        self.repository("dataset" if prefix else "model", name)
        self.send_json({"transfer": "basic", "objects": [self._action(one) for one in json.loads(body)["objects"]]})

    def _action(self, wanted: dict[str, object]) -> dict[str, object]:
        oid, size = str(wanted["oid"]), int(str(wanted["size"]))
        if oid in self.server.blobs:
            return {"oid": oid, "size": size}
        url = f"{self.server.url}/lfs/{oid}"
        if size <= _PARTS:
            return {"oid": oid, "size": size, "actions": {"upload": {"href": url, "header": {}}}}
        count = -(-size // _PARTS)
        header = {"chunk_size": str(_PARTS), **{f"{part:05d}": f"{url}/{part}" for part in range(1, count + 1)}}
        return {"oid": oid, "size": size, "actions": {"upload": {"href": f"{url}/complete", "header": header}}}

    def store(self, oid: str, part: str | None, body: bytes) -> None:
        if part is None:
            assert hashlib.sha256(body).hexdigest() == oid
            self.server.blobs[oid] = body
        else:
            self.server.parts.setdefault(oid, {})[int(part)] = body
        self.send(200, b"", {"ETag": f'"{part or oid}"'})

    def complete(self, oid: str, body: bytes) -> None:
        del body
        parts = self.server.parts[oid]
        whole = b"".join(parts[number] for number in sorted(parts))
        assert hashlib.sha256(whole).hexdigest() == oid
        self.server.blobs[oid] = whole
        self.send_json({})

    def download(self, prefix: str | None, name: str, revision: str, file: str, body: bytes) -> None:
        del body
        repository, commit = self._at("dataset" if prefix else "model", name, revision)
        content = repository.files(commit).get(file)
        if content is None:
            raise _RefusedError(404, "EntryNotFound", "Entry not found")
        tag = _oid(file, content, file.endswith(LFS_SUFFIXES))
        self.send(200, content, {"ETag": f'"{tag}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"})


def _oid(path: str, content: bytes, by_lfs: bool) -> str:
    """SHA-256 of a file of Git LFS, or hash of a blob of git."""
    del path
    if by_lfs:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A stand-in that answers while the block runs."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        thread.join()
        hub.server_close()


def connect(patch: pytest.MonkeyPatch, hub: Hub, cache: Path, *, token: str | None = TOKEN) -> None:
    """Make huggingface_hub talk to the stand-in in this process, by Git LFS, with an empty cache."""
    constants = huggingface_hub.constants
    patch.setattr(constants, "ENDPOINT", hub.url)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    patch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
    patch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
    patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    patch.delenv("HF_TOKEN", raising=False)
    if token is not None:
        patch.setenv("HF_TOKEN", token)
