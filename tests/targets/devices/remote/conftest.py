"""A device on this machine: OpenSSH's server on a loopback port, with keys and settings of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import getpass
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgeq.targets.devices.remote.address import Address


@dataclasses.dataclass(frozen=True)
class Board:
    """What a test needs to reach the device, and to look at it from behind."""

    port: int
    ssh_config: Path
    store: Path

    @property
    def address(self) -> Address:
        """Its address: a name that only the ssh configuration knows, and a folder for bundles."""
        return Address("board", port=self.port, folder=str(self.store))

    def folder(self) -> Path:
        """The only bundle that is on it."""
        (folder,) = self.store.iterdir()
        return folder


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _keygen(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True, timeout=60)


def _server_settings(folder: Path, port: int) -> str:
    root = os.geteuid() == 0
    return "\n".join(
        [
            f"Port {port}",
            "ListenAddress 127.0.0.1",
            f"HostKey {folder}/host_key",
            f"AuthorizedKeysFile {folder}/client_key.pub",
            f"PidFile {folder}/sshd.pid",
            "StrictModes no",
            "PasswordAuthentication no",
            "PermitRootLogin yes",
            f"UsePAM {'yes' if root else 'no'}",  # without it a locked password locks the account, keys or not
            f'SetEnv XDG_CACHE_HOME="{folder}/cache folder"',
        ]
    )


def _client_settings(folder: Path) -> str:
    return "\n".join(
        [
            "Host board",
            "  HostName 127.0.0.1",
            f"  User {getpass.getuser()}",
            f"  IdentityFile {folder}/client_key",
            "  IdentitiesOnly yes",
            "  HostKeyAlias board",
            f"  UserKnownHostsFile {folder}/known_hosts",
            "  StrictHostKeyChecking yes",
        ]
    )


@pytest.fixture
def board(server: Board, tmp_path: Path) -> Board:
    """A device with no bundle on it."""
    return dataclasses.replace(server, store=tmp_path / "store")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, needs: Callable[..., None]) -> Iterator[Board]:
    """The server; its cache folder is that of the user who logs in."""
    needs("ssh")
    program = str(shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # what the service's start would do
    folder, port = tmp_path_factory.mktemp("sshd"), _free_port()
    for key in ("host_key", "client_key"):
        _keygen(folder / key)
    public = (folder / "host_key.pub").read_text()
    (folder / "known_hosts").write_text(f"board {public}")
    (folder / "sshd_config").write_text(_server_settings(folder, port))
    (folder / "ssh_config").write_text(_client_settings(folder))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log)
    try:
        _wait_for(port, process, folder / "log")
        yield Board(port, folder / "ssh_config", folder / "cache folder" / "edgeq")
    finally:
        process.terminate()
        process.wait(timeout=20)


def _wait_for(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(200):
        if server.poll() is not None:
            break
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    pytest.fail(f"sshd did not start: {log.read_text(errors='replace')}")


@pytest.fixture
def cut_after(board: Board) -> Iterator[Callable[[int], int]]:
    """Returns a function that opens a port to the device which goes dead after so many bytes to it."""
    stop = threading.Event()
    listeners: list[socket.socket] = []

    def open_port(limit: int) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        threading.Thread(target=_serve, args=(listener, board.port, limit, stop), daemon=True).start()
        return listener.getsockname()[1]

    yield open_port
    stop.set()
    for listener in listeners:
        listener.close()


def _serve(listener: socket.socket, port: int, limit: int, stop: threading.Event) -> None:
    left = [limit]
    while not stop.is_set():
        try:
            client, _ = listener.accept()
        except OSError:
            return
        server = socket.create_connection(("127.0.0.1", port))
        threading.Thread(target=_pass_on, args=(server, client, [1 << 60]), daemon=True).start()
        threading.Thread(target=_pass_on, args=(client, server, left), daemon=True).start()


def _pass_on(source: socket.socket, sink: socket.socket, left: list[int]) -> None:
    with contextlib.suppress(OSError):
        while left[0] > 0 and (data := source.recv(1 << 14)):
            left[0] -= len(data)
            sink.sendall(data)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
