"""Which addresses the service may connect to on a client's behalf."""

from __future__ import annotations

import asyncio
import ipaddress
import socket

from actors.keepout import lies_in
from serve.live.items import SessionError
from serve.settings import ApiSettings

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Whether an IP address lies in the public internet.

    Not so are private, loopback, link-local (where clouds keep their metadata), shared, reserved,
    multicast and unspecified ones, nor IPv6 addresses that stand for such an IPv4 one.
    """
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)
        if inner is not None:
            return is_public(str(inner))
        if ip.is_site_local:
            return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved)


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of a name, or of an address in an unusual spelling, as the system has them.

    Raises:
        OSError: it has none.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def check_outside(url: str, store: str) -> None:
    """The state store holds what is other clients', wherever else its bucket may be read.

    Raises:
        SessionError: ``url_not_allowed``: the ``s3://`` address lies in ``store``.
    """
    if lies_in(url, store):
        raise SessionError("url_not_allowed", "the service keeps its own state there")


async def checked_addresses(host: str, port: int, settings: ApiSettings) -> list[str]:
    """What ``host`` resolves to, all of it allowed. Connect to these: the next look-up may differ.

    Raises:
        SessionError: ``url_unreachable`` where it resolves to nothing, ``url_not_allowed`` where
            one address is not public and ``settings`` do not allow that.
    """
    try:
        addresses = [host] if _is_address(host) else await resolve(host, port)
    except (OSError, UnicodeError):
        addresses = []
    if not addresses:
        raise SessionError("url_unreachable", f"the name {host} cannot be resolved")
    if not settings.allow_private_urls and not all(map(is_public, addresses)):
        raise SessionError("url_not_allowed", f"{host} is not an address of the public internet")
    return addresses


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
