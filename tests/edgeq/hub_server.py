"""The part of the Hugging Face hub's protocol that fetching a model takes, on this machine, from a folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_" + "a" * 34


@contextlib.contextmanager
def hub_of(folder: Path, *, name: str, private: bool = False) -> Iterator[tuple[str, list[str]]]:
    """Serves one model; yields the address for HF_ENDPOINT, and the files that were asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            if private and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self._answer(401, b"{}", {"X-Error-Code": "RepoNotFound"})
            elif path.startswith((f"/api/models/{name}/revision/", f"/api/models/{name}")) and "/tree/" not in path:
                self._answer(200, json.dumps(_info(folder, name)).encode())
            elif f"/api/models/{name}/tree/" in path:
                self._answer(200, json.dumps([_entry(folder, file) for file in _files(folder)]).encode())
            elif path.startswith(f"/{name}/resolve/"):
                self._file(path.split("/", 5)[5])
            else:
                self._answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})

        do_HEAD = do_GET  # noqa: N815

        def _file(self, wanted: str) -> None:
            if not (folder / wanted).is_file():
                self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})
                return
            if self.command == "GET":
                asked.append(wanted)
            data = (folder / wanted).read_bytes()
            self._answer(200, data, {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": _COMMIT})

        def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for key, value in (headers or {}).items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def _info(folder: Path, name: str) -> dict[str, object]:
    files = [{"rfilename": file} for file in _files(folder)]
    return {"id": name, "modelId": name, "sha": _COMMIT, "private": False, "tags": [], "siblings": files}


def _entry(folder: Path, file: str) -> dict[str, object]:
    size = (folder / file).stat().st_size
    return {"type": "file", "path": file, "size": size, "oid": hashlib.sha1(file.encode()).hexdigest()}  # noqa: S324
