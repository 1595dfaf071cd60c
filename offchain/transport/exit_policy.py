# SPDX-License-Identifier: BSD-3-Clause
"""Which connections an exit opens for clients."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

_LAST_PORT = 0xFFFF
_PUBLIC = "public"
_NOT_PUBLIC = ("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
               "172.16.0.0/12", "192.168.0.0/16")
"""IPv4 networks that a descriptor rejects before it accepts the public rest (tor's "private")."""
_EMBEDDING = tuple(map(ipaddress.IPv6Network, ("::/8", "2002::/16", "fec0::/10")))
"""IPv6 networks that lead to IPv4 addresses, of whatever kind, and site-local ones, which Python
counts as global. Tor's "private" has the first and the last as well."""


@dataclass(frozen=True, slots=True)
class _Rule:
    network: ipaddress.IPv4Network | ipaddress.IPv6Network | None
    first_port: int
    last_port: int
    public: bool = False

    @classmethod
    def parse(cls, text: str) -> _Rule:
        host, colon, ports = text.strip().rpartition(":")
        if not colon or not host or not ports:
            raise ValueError(f"exit rule {text!r} is not network:port")
        host = host.removeprefix("[").removesuffix("]")
        public = host == _PUBLIC
        network = None if public or host == "*" else ipaddress.ip_network(host)
        if ports == "*":
            return cls(network, 1, _LAST_PORT, public)
        first, dash, last = ports.partition("-")
        rule = cls(network, int(first), int(last if dash else first), public)
        if not 1 <= rule.first_port <= rule.last_port <= _LAST_PORT:
            raise ValueError(f"exit rule {text!r} has a bad port")
        return rule

    def __str__(self) -> str:
        ports = (str(self.first_port) if self.first_port == self.last_port
                 else f"{self.first_port}-{self.last_port}")
        every = self.first_port == 1 and self.last_port == _LAST_PORT
        return f"{self.network or '*'}:{'*' if every else ports}"

    def matches(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> bool:
        return (self.first_port <= port <= self.last_port
                and (self.network is None or address in self.network)
                and (not self.public or _is_public(address)))


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return (address.is_global and not address.is_multicast
            and not any(address in network for network in _EMBEDDING))


class ExitPolicy:
    """A list of what is accepted; everything else is refused.

    A rule is `network:ports`: a network is an address, a CIDR block (IPv6 may stand in brackets)
    or `*`, or `public` for every address that all of the Internet can reach and that is nobody's
    own network; ports are one number, a range `a-b` or `*`.
    """

    def __init__(self, rules: Iterable[str] = ()) -> None:
        """Raises ValueError for a rule that cannot be read."""
        self.rules = tuple(rules)
        self._rules = tuple(_Rule.parse(rule) for rule in self.rules)

    @classmethod
    def reject_all(cls) -> ExitPolicy:
        """For routers that carry no user streams."""
        return cls()

    @classmethod
    def loopback_only(cls) -> ExitPolicy:
        """For demonstrations and tests: nothing beyond this machine."""
        return cls(["127.0.0.0/8:*", "[::1]:*"])

    @property
    def is_exit(self) -> bool:
        """Whether anything at all is accepted."""
        return bool(self._rules)

    def lines(self) -> tuple[str, ...]:
        """The policy as a server descriptor has it. IPv6 networks are left out: descriptors have
        only a summary for IPv6, which could promise more than this policy keeps."""
        accepted = [rule for rule in self._rules if not rule.public
                    and (rule.network is None or rule.network.version == 4)]
        public = [f"accept {rule}" for rule in self._rules if rule.public]
        if public:
            public = [*(f"reject {network}:*" for network in _NOT_PUBLIC), *public]
        return (*(f"accept {rule}" for rule in accepted), *public, "reject *:*")

    def accepts(self, address: str, port: int) -> bool:
        """Whether a connection to this address (not a name) and port may be opened."""
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        if parsed.version == 6 and parsed.ipv4_mapped is not None:
            # The kernel connects it by IPv4.
            parsed = parsed.ipv4_mapped
        return any(rule.matches(parsed, port) for rule in self._rules)
