"""A hub on this machine: folders of files behind the part of the hub's protocol that huggingface_hub asks for."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "c" * 40
LARGE = (".safetensors", ".parquet")  # named by SHA-256, as files in LFS are; others as git names them


class Hub(ThreadingHTTPServer):
    """Serves `folder/models/OWNER/NAME` and `folder/datasets/OWNER/NAME`.

    Attributes:
        gated: names that only `token` opens; a name that is not there is refused alike.
        damaged: paths of files that arrive with another byte.
        asked: "METHOD path" of each request.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.gated: set[str] = set()
        self.damaged: set[str] = set()
        self.token = "hf_secretsecretsecret"
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        """For HF_ENDPOINT."""
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def loopback_hub(folder: Path) -> Iterator[Hub]:
    """A hub while the block runs."""
    hub = Hub(folder)
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join(10)


def etag(path: Path) -> str:
    data = path.read_bytes()
    if path.suffix in LARGE:
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Nothing on the terminal."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = self.path.partition("?")[0].strip("/")
        self.server.asked.append(f"{self.command} {path}")
        words = path.removeprefix("api/").split("/")
        kind = words.pop(0) if words[0] in ("models", "datasets") else "models"
        name, what, rest = "/".join(words[:2]), words[2] if len(words) > 2 else "", words[4:]
        folder = self.server.folder / kind / name
        if not folder.is_dir():
            self._send(404, {"X-Error-Code": "RepoNotFound"})
        elif name in self.server.gated and self.headers.get("Authorization") != f"Bearer {self.server.token}":
            self._send(403, {"X-Error-Code": "GatedRepo"})
        elif what in ("revision", "tree", "resolve") and words[3] not in ("main", COMMIT):
            self._send(404, {"X-Error-Code": "RevisionNotFound"})
        elif what == "tree":
            self._json([self._entry(file, folder) for file in sorted(folder.rglob("*")) if file.is_file()])
        elif what == "resolve":
            self._file(folder / "/".join(rest))
        else:
            self._json({"id": name, "sha": COMMIT, "siblings": [], "private": False, "tags": []})

    def _entry(self, file: Path, folder: Path) -> dict[str, Any]:
        size, path = file.stat().st_size, str(file.relative_to(folder))
        entry = {"type": "file", "path": path, "size": size, "oid": etag(file)}
        return entry | ({"lfs": {"oid": etag(file), "size": size, "pointerSize": 9}} if file.suffix in LARGE else {})

    def _file(self, file: Path) -> None:
        data = file.read_bytes()
        headers = {"ETag": f'"{etag(file)}"', "X-Repo-Commit": COMMIT, "X-Linked-Size": str(len(data))}
        if file.name in self.server.damaged:
            data = data[:-1] + bytes([data[-1] ^ 1])
        self._send(200, headers, data)

    def _json(self, value: Any) -> None:
        self._send(200, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def _send(self, status: int, headers: dict[str, str], data: bytes = b"") -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)
