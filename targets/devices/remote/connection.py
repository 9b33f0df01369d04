"""Commands on a device, through the system's own ``ssh``: its keys, its configuration, its known hosts."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Self

from edgeq.errors import EdgeqError, UsageError
from edgeq.targets.devices.remote.address import Address

_LONGEST_SOCKET_FOLDER = 60
"""Paths of sockets end at 107 bytes, and ssh puts a digest and a random name behind the folder."""
_LOST = 255
"""Exit code of ssh itself; every other one is the command's."""
_OPTIONS = {
    "BatchMode": "yes",  # nobody is there to type a password or to accept a host key
    "ConnectTimeout": "20",
    # A device that went away is noticed within a minute, however long its command takes.
    "ServerAliveInterval": "10",
    "ServerAliveCountMax": "4",
}


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a command on the device left behind."""

    code: int
    output: str
    errors: str

    @property
    def reason(self) -> str:
        """Why it failed, in its own last words or by its exit code."""
        lines = self.errors.strip().splitlines()
        if self.code > 128:
            try:
                return f"it was ended by {signal.Signals(self.code - 128).name}"
            except ValueError:
                pass
        return lines[-1] if lines else f"it ended with code {self.code}"


class Connection:
    """Runs commands on a device, all through one connection of ssh; a context manager, which ends it.

    Attributes:
        address: The device.
    """

    def __init__(self, address: Address, *, config: Path | None = None) -> None:
        """Takes an address.

        Args:
            address: The device.
            config: Configuration file for ssh in place of the user's own, or None.

        Raises:
            EdgeqError: If there is no ssh here.
            UsageError: If ``config`` does not exist.
        """
        self.address = address
        if config is not None and not config.is_file():
            raise UsageError(f"no ssh configuration at {config}")
        program = shutil.which("ssh")
        if program is None:
            raise EdgeqError("there is no ssh here; install it with `apt-get install openssh-client`")
        # The first command leaves a connection open for the others: on a small board a handshake takes a second.
        self._socket = tempfile.TemporaryDirectory(prefix="edgeq-ssh-")
        shared = {"ControlMaster": "auto", "ControlPath": f"{self._socket.name}/%C", "ControlPersist": "60"}
        if len(self._socket.name) > _LONGEST_SOCKET_FOLDER:
            shared = {"ControlMaster": "no", "ControlPath": "none"}
        options = [word for name, value in (_OPTIONS | shared).items() for word in ("-o", f"{name}={value}")]
        configured = ["-F", str(config)] if config is not None else []
        self._command = [program, "-T", *configured, *options]

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Ends the connection."""
        command = [*self._command, "-O", "exit", *self.address.ssh_arguments]
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(command, capture_output=True, timeout=20, check=False)
        self._socket.cleanup()

    def ask(self, script: str, *, doing: str, data: Iterable[bytes] = ()) -> Answer:
        """Runs a script and returns its answer, whatever its exit code.

        Args:
            script: One line for the device's ``sh``.
            doing: What it is for, such as ``"copying weights.bin"``.
            data: What it reads from its standard input.

        Raises:
            EdgeqError: If the device cannot be reached, or the connection is lost.
        """
        # Not every login shell is one that POSIX describes. The inner shell may be killed: the outer says by what.
        words = f"exec sh -c {shlex.quote(f'({script}); exit $?')}"
        command = [*self._command, *self.address.ssh_arguments, words]
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=errors) as process:
                try:
                    _feed(process, data)
                except BaseException:
                    process.kill()
                    raise
            answer = Answer(process.returncode, _text(output), _text(errors))
        if answer.code == _LOST:
            raise EdgeqError(
                f"no connection to {self.address} while {doing} ({_said(answer)}); check that ssh gets there without a "
                "password and run the command again: what has arrived whole stays there"
            )
        return answer

    def run(self, script: str, *, doing: str, data: Iterable[bytes] = ()) -> str:
        """Does the same as :meth:`ask`, returns the output, and raises EdgeqError for any exit code but 0."""
        answer = self.ask(script, doing=doing, data=data)
        if answer.code != 0:
            raise EdgeqError(f"{self.address} failed while {doing}: {answer.reason}")
        return answer.output


def _feed(process: subprocess.Popen[bytes], data: Iterable[bytes]) -> None:
    stream = process.stdin
    assert stream is not None  # noqa: S101  (Popen was asked for a pipe)
    try:
        for block in data:
            stream.write(block)
        stream.close()
    except BrokenPipeError:
        pass  # the exit code says why
    process.wait()


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", errors="replace")


def _said(answer: Answer) -> str:
    lines = answer.errors.strip().splitlines()
    return lines[-1].strip().rstrip(".") if lines else "ssh gave no reason"
