"""What netavark has put into the machine's tables of packets, and how it goes again.

netavark itself takes out the rules of a network with its last container, and leaves those that all networks share.
Knows text as `iptables --list-rules` writes it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence

#: Families of addresses by the program that shows their tables, and the tables that netavark writes to.
PROGRAMS, TABLES = ("iptables", "ip6tables"), ("nat", "filter")
#: Its chains, and those of one network among them, named by a hash.
THEIRS, OF_A_NETWORK = re.compile(r"^NETAVARK"), re.compile(r"^NETAVARK-(?:DN-)?[0-9A-F]{10,}$")


def undone(before: Sequence[str], after: Sequence[str]) -> Iterator[list[str]]:
    """Arguments by which what has come to a table since goes again, in their order.

    before, after: its lines. None while a network is in use: the shared chains are those of whoever runs it, too. Of
    one that is gone a chain may be left, empty (netavark 1.4).
    """
    new = [line.split() for line in after if line not in set(before)]
    if any(line.startswith("-A") and any(map(OF_A_NETWORK.match, line.split())) for line in after):
        return
    chains = [chain for chain in _chains(new) if THEIRS.match(chain)]
    for words in (shlex.split(line) for line in after if line not in set(before)):
        if words[0] == "-A" and words[1] not in chains and any(THEIRS.match(word) for word in words):
            yield ["-D", *words[1:]]
    yield from (["-F", chain] for chain in chains)
    yield from (["-X", chain] for chain in chains)


def _chains(lines: Sequence[list[str]]) -> list[str]:
    return [words[1] for words in lines if words[0] == "-N"]
