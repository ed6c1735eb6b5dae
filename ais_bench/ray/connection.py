"""The connection of this program to a Ray cluster. All sessions of a program share one connection."""

from __future__ import annotations

import os
import socket
from typing import Any

import ray

from ais_bench.errors import ConfigError
from ais_bench.tuning import REACH_S

__all__ = ["connect"]


def connect(address: Any) -> None:
    """Connect to the cluster at `address`, unless this program is already connected. Raises ConfigError.

    If the program has called `ray.init` or has made a session, it keeps this connection. An address of another cluster is then
    refused.
    """
    if not isinstance(address, str) or not address:
        raise ConfigError(f'address must be "auto" or a text such as "10.0.0.1:6379", got {address!r}')
    if ray.is_initialized():
        _refuse_another(address)
        return
    _reach(os.environ.get("RAY_ADDRESS", address) if address == "auto" else address)
    try:
        ray.init(address=address, log_to_driver=False)
    except (Exception, SystemExit) as error:  # Ray ends the program if the address does not belong to a cluster
        said = "the program at this address is not the head of a Ray cluster" if isinstance(error, SystemExit) else str(error)
        raise ConfigError(
            f"cannot connect to a Ray cluster with address={address!r}: {said}; `ray start --head` starts one, and this "
            "program needs the cluster's versions of Ray and Python"
        ) from error


def _refuse_another(address: str) -> None:
    place = _host_and_port(address)
    if place is None:
        return
    connected = ray.get_runtime_context().gcs_address
    other = _host_and_port(connected)
    if other is None or place[1] != other[1] or not _addresses(place[0]) & _addresses(other[0]):
        raise ConfigError(
            f"address must be {connected!r} or 'auto', as this program is connected to that cluster, got {address!r}; "
            "call ray.shutdown() first"
        )


def _reach(address: str) -> None:
    """Raise ConfigError if nothing listens at the address. Ray itself tries for two minutes and then ends the program."""
    place = _host_and_port(address)
    if place is None:
        return
    try:
        socket.create_connection(place, REACH_S).close()
    except OSError as error:
        raise ConfigError(f"address must be that of a running Ray cluster, got {address!r}: {error}") from error


def _host_and_port(address: str) -> tuple[str, int] | None:
    """Return the host and port of "host:port"; None for an address in another form, which only Ray understands."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or "/" in host:
        return None
    return host.strip("[]"), int(port)


def _addresses(host: str) -> set[str]:
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
    except OSError:
        return {host}
    if any(address.startswith("127.") or address == "::1" for address in found):
        found.add(ray.util.get_node_ip_address())
    return found
