"""What goes wrong in a storm, and when: all of it follows from the seed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

SERVER = "server"


class Act(StrEnum):
    """What is done to a process, or to the road between a client and the server."""

    KILL = "kill"
    STOP = "stop"
    GO_ON = "go on"
    SLOW = "slow"
    CUT = "cut"


@dataclass(frozen=True)
class Fault:
    """One act. ``at`` is in seconds since the start; ``seconds`` the delay of a slow road.
    ``served`` is whether nothing else happens until the server that takes a killed one's place
    serves."""

    at: float
    act: Act
    target: str
    seconds: float = 0.0
    served: bool = False


def plan(seed: int, seconds: float, clients: Sequence[str]) -> list[Fault]:
    """All faults of a storm, in order: more than two kills in a second, one in five of them the
    server's."""
    faults = list(_of_the_server(random.Random(f"{seed}/server"), seconds))
    for client in clients:
        faults += _of_a_client(random.Random(f"{seed}/{client}"), seconds, client)
    return sorted(faults, key=lambda f: f.at)


def _of_the_server(chance: random.Random, seconds: float) -> Iterator[Fault]:
    at = 1.0
    while (at := at + chance.choice((0.4, 1.5, 2.5)) * chance.uniform(0.5, 1.5)) < seconds:
        if chance.random() < 0.75:
            # Some kills hit a server that is still starting, most one that had time to work.
            yield Fault(at, Act.KILL, SERVER, served=chance.random() < 0.75)
        else:
            yield from _pause(chance, at, SERVER, 0.6)


def _of_a_client(chance: random.Random, seconds: float, client: str) -> Iterator[Fault]:
    at = 0.5
    while (at := at + chance.uniform(0.5, 4.5)) < seconds:
        kind = chance.random()
        if kind < 0.6:
            yield Fault(at, Act.KILL, client)
        elif kind < 0.75:
            yield from _pause(chance, at, client, 1.5)
        elif kind < 0.9:
            yield Fault(at, Act.SLOW, client, chance.uniform(0.002, 0.05))
            yield Fault(at + chance.uniform(0.2, 1.0), Act.SLOW, client, 0.0)
        else:
            yield Fault(at, Act.CUT, client)


def _pause(chance: random.Random, at: float, target: str, longest: float) -> Iterator[Fault]:
    yield Fault(at, Act.STOP, target)
    yield Fault(at + chance.uniform(0.05, longest), Act.GO_ON, target)
