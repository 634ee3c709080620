"""A pytest plugin for those who write providers or consumers. It comes with the core.

Fixtures: ``device_api_node`` runs daemons in a thread of the test, ``device_api_server`` in
processes that can be killed (both make a :class:`~device_api_core.testing.nodes.Node` when called),
and ``fake_clock`` is a clock that the test sets. And the contract that every provider keeps::

    from device_api_core.testing import provider_contract

    TestContract = provider_contract("fan")

Importing this imports neither gRPC nor the daemon, since pytest does it in every run.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from device_api_core.testing.clock import FakeClock
from device_api_core.testing.contract import provider_contract

if TYPE_CHECKING:
    from device_api_core.testing.nodes import Node

__all__ = ["FakeClock", "provider_contract"]


@pytest.fixture
def fake_clock() -> FakeClock:
    """A clock that stands still until the test advances it."""
    return FakeClock()


@pytest.fixture
def device_api_node() -> Iterator[Callable[..., Node]]:
    """Starts daemons in threads of this process: ``device_api_node("fan", options={"fan": {}})``.
    They are stopped after the test."""
    from device_api_core.testing.nodes import ThreadNode

    with ExitStack() as stack:
        yield lambda *names, **how: _started(stack, ThreadNode, names, how)


@pytest.fixture
def device_api_server() -> Iterator[Callable[..., Node]]:
    """The same with processes of their own."""
    from device_api_core.testing.nodes import ProcessNode

    with ExitStack() as stack:
        yield lambda *names, **how: _started(stack, ProcessNode, names, how)


def _started(
    stack: ExitStack, kind: type[Node], names: tuple[str, ...], how: dict[str, object]
) -> Node:
    # Not pytest's tmp_path: a socket's path may have 107 bytes.
    directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="dapi-"))
    node = kind(Path(directory), *names, **how)  # type: ignore[arg-type]
    stack.callback(node.close)
    node.start()
    return node
