"""Indexers: by which keys the objects of a store can be looked up."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

T_contra = TypeVar("T_contra", contravariant=True)


def _as_it_is(key: str) -> str:
    return key


@dataclass(frozen=True, slots=True)
class Indexer(Generic[T_contra]):
    """``keys`` gives the keys of an object, none or several; ``normal`` brings a key, also one that
    is looked up, into the form in which keys are compared. Both must be pure and must not raise:
    they run wherever the store changes."""

    keys: Callable[[T_contra], Iterable[str]]
    normal: Callable[[str], str] = _as_it_is

    def keys_of(self, value: T_contra) -> frozenset[str]:
        """The normal keys of an object; an empty one is none."""
        return frozenset(filter(None, map(self.normal, self.keys(value))))
