"""Which addresses may be connected to: a page must not lead the crawler into the network it runs in.

A name is looked up once for each request, every address that it has is judged, and the connection goes to a
judged address, so a second look-up (DNS rebinding) has no say. A redirect is another request.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network

from so8t.collect.web.refusal import Refused, Unreachable

Address = IPv4Address | IPv6Address
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

# IANA's special-purpose registries, and the clouds' own services on addresses that are public in form.
_NEVER_PUBLIC = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32",
        "::/128", "::1/128", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "3fff::/20", "5f00::/16",
        "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
    )
)  # fmt: skip
# What a host that the config names may have: this machine, or a network of one's own. Never a cloud's metadata.
_OWN = tuple(
    ipaddress.ip_network(network)
    for network in ("10.0.0.0/8", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7")
)
_METADATA = frozenset(ipaddress.ip_address(address) for address in ("fd00:ec2::254", "fd20:ce::254"))
_NAT64 = IPv6Network("64:ff9b::/96")
_IPV4_COMPATIBLE = IPv6Network("::/96")


async def look_up(host: str, port: int) -> Sequence[str]:
    """All addresses of a name, by the system's resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Guard:
    """Gives the addresses of a host that may be connected to; ports but 80 and 443 only of hosts named with them."""

    def __init__(
        self, private_hosts: Sequence[str] = (), resolve: Resolve = look_up, named_hosts: Sequence[str] = ()
    ) -> None:
        self._private_hosts, self._named_hosts = frozenset(private_hosts), frozenset(named_hosts)
        self._resolve = resolve

    async def addresses(self, host: str, port: int, netloc: str) -> list[Address]:
        """Judged addresses, in the resolver's order. One bad address refuses the host; Unreachable without any."""
        try:
            found = [ipaddress.ip_address(text.split("%")[0]) for text in await self._resolve(host, port)]
        except (OSError, UnicodeError) as error:
            raise Unreachable(f"no address: {error}") from error
        if not found:
            raise Unreachable("no address")
        own = netloc in self._private_hosts
        for address in found:
            if not (is_own(address) if own else is_public(address)):
                raise Refused("its address is not public" if not own else "its address is none of a private network")
        if not own and port not in (80, 443) and netloc not in self._named_hosts:
            raise Refused("its port is neither 80 nor 443")
        return found


def is_public(address: Address) -> bool:
    """Whether an address is on the open internet, and so is any IPv4 address that it carries."""
    carried = _carried(address)
    return (
        address.is_global
        and not any(address in network for network in _NEVER_PUBLIC if network.version == address.version)
        and (carried is None or is_public(carried))
    )


def is_own(address: Address) -> bool:
    """Whether an address is this machine's or a private network's."""
    if address in _METADATA or _carried(address) is not None:
        return False
    return any(address in network for network in _OWN if network.version == address.version)


def _carried(address: Address) -> IPv4Address | None:
    """The IPv4 address within: mapped, compatible, 6to4, Teredo or NAT64."""
    if isinstance(address, IPv4Address):
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64 or (address in _IPV4_COMPATIBLE and int(address) > 1):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return None
