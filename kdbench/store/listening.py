"""Where a server listens: an address of this machine, and the names under which it answers."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from dataclasses import dataclass

from kdbench.errors import BadInput

LOCAL = "127.0.0.1"


@dataclass(frozen=True)
class Address:
    """An address of this machine and a port of it that was free.

    Attributes:
        host: as asked for: a name, an IPv4 or IPv6 address, 0.0.0.0 or :: for all.
        number: the address that it stands for.
    """

    host: str
    number: ipaddress.IPv4Address | ipaddress.IPv6Address
    port: int

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it."""
        return self.number.is_loopback

    @property
    def reached(self) -> tuple[str, int]:
        """Where this machine reaches it."""
        if not self.number.is_unspecified:
            return str(self.number), self.port
        return ("::1" if self.number.version == 6 else LOCAL), self.port

    @property
    def url_here(self) -> str:
        """For this machine."""
        return f"http://{_bracketed(self.reached[0])}:{self.port}"

    @property
    def url(self) -> str:
        """For people, who may sit elsewhere."""
        name = socket.gethostname() if self.number.is_unspecified else self.host
        return f"http://{_bracketed(name)}:{self.port}"

    @property
    def names(self) -> list[str]:
        """The `Host` headers that are answered: no page elsewhere may have its own name lead here (DNS rebinding).

        A machine that others know by further names has them in MLFLOW_SERVER_ALLOWED_HOSTS.
        """
        hosts, given = [LOCAL, "localhost", self.host], ""
        if not self.is_local:
            hosts += [socket.gethostname(), socket.getfqdn(), *_addresses()]
            given = os.environ.get("MLFLOW_SERVER_ALLOWED_HOSTS", "")
        names = [f"{_bracketed(host)}:{self.port}" for host in hosts]
        return list(dict.fromkeys([*names, *(name.strip() for name in given.split(",") if name.strip())]))


def free_address(host: str, port: int) -> Address:
    """The address, once nobody listens there; port 0 takes any free one.

    Raises:
        BadInput: the port is busy or none, or the host no address of this machine.
    """
    try:
        family, kind, _, _, (number, _, *scope) = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            # As the server itself will: a port whose last connections are still closing is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((number, port, *scope))
            return Address(host, ipaddress.ip_address(str(number)), probe.getsockname()[1])
    except (OSError, OverflowError, UnicodeError) as error:
        raise _refused(host, port, error) from error


def _refused(host: str, port: int, error: Exception) -> BadInput:
    elsewhere = isinstance(error, OSError) and error.errno == errno.EADDRNOTAVAIL
    if elsewhere or isinstance(error, (socket.gaierror, UnicodeError)):
        hint = f"{LOCAL} is seen by this machine alone, 0.0.0.0 listens on all its addresses"
        return BadInput(f"--host {host}: no address of this machine", hint=hint)
    reason = "is none" if isinstance(error, OverflowError) else "is busy"
    if isinstance(error, PermissionError):
        reason = "needs privileges"
    return BadInput(f"port {port} {reason}", hint="choose another one with --port, or --port 0 for any")


def _addresses() -> list[str]:
    """Of this machine: those that its name stands for, and the one that packets leave from; none is sent for that."""
    found = []
    try:
        found += [str(place[0]) for *_, place in socket.getaddrinfo(socket.gethostname(), None)]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))  # RFC 5737: documentation
            found.append(str(probe.getsockname()[0]))
    except OSError:
        return found  # a machine without a name or a network
    return found


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
