"""Where a device is: ``ssh://user@host:port/folder``."""

from __future__ import annotations

import dataclasses
import re
import urllib.parse

from edgeq.errors import UsageError

_EXAMPLE = "such as ssh://pi@192.168.1.7 or ssh://pi@board.local:2222"
_NAME = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.@%:-]*")
"""What users and hosts may look like: never like an option of ssh, nor like anything a shell reads."""


@dataclasses.dataclass(frozen=True)
class Address:
    """A device that ssh can reach.

    Attributes:
        host: Name or IP address, or a ``Host`` of the user's ssh configuration.
        user: Login name; None takes what ssh takes.
        port: Port; None takes what ssh takes.
        folder: Folder on the device that holds the bundles; None takes the user's cache folder there.
    """

    host: str
    user: str | None = None
    port: int | None = None
    folder: str | None = None

    def __str__(self) -> str:
        """The address as the user writes it, without the folder."""
        user = f"{self.user}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ssh://{user}{host}{f':{self.port}' if self.port else ''}"

    @property
    def ssh_arguments(self) -> list[str]:
        """Arguments that make ``ssh`` connect to the device."""
        port = ["-p", str(self.port)] if self.port else []
        user = ["-l", self.user] if self.user else []
        return [*port, *user, "--", self.host]


def parse_address(text: str) -> Address:
    """Reads an address.

    Args:
        text: ``ssh://[user@]host[:port][/folder]``.

    Raises:
        UsageError: If it is not one.
    """
    try:
        parts = urllib.parse.urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"--on {text!r} is no address ({error}); give one {_EXAMPLE}") from error
    if parts.scheme != "ssh" or not parts.hostname:
        raise UsageError(f"--on takes an address {_EXAMPLE}, found {text!r}")
    if parts.password is not None:
        raise UsageError(f"--on takes no password; set up a key with `ssh-copy-id {parts.hostname}`")
    if parts.query or parts.fragment:
        raise UsageError(f"--on takes an address {_EXAMPLE}, found {text!r}")
    # urlsplit makes host names lower case; ssh compares aliases of its configuration as they are written.
    host = re.sub(r"^.*@", "", parts.netloc)
    host = host[1 : host.index("]")] if host.startswith("[") else host.split(":", 1)[0]
    for name in (host, *([parts.username] if parts.username else [])):
        if not _NAME.fullmatch(name) and not _is_ipv6(name):
            raise UsageError(f"--on {text!r}: {name!r} is no name of a user or host; give an address {_EXAMPLE}")
    return Address(host, parts.username, port, parts.path.rstrip("/") or None)


def _is_ipv6(name: str) -> bool:
    return re.fullmatch(r"[0-9A-Fa-f:.]+(%[A-Za-z0-9_.]+)?", name) is not None
