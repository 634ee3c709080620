"""What several test files share: hypothesis profiles, and a loop on which waiting takes no time."""

from __future__ import annotations

import asyncio
import logging
import os
import selectors
import shutil

import pytest
from hypothesis import HealthCheck, settings

# A failure prints the seed and the blob that repeat it. `--hypothesis-profile thorough` looks
# longer.
_ALWAYS = {
    "deadline": None,
    "print_blob": True,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
}
settings.register_profile("brief", max_examples=60, stateful_step_count=40, **_ALWAYS)
settings.register_profile("thorough", max_examples=2_000, stateful_step_count=100, **_ALWAYS)
settings.load_profile("brief")


def pytest_configure(config):
    config.addinivalue_line("markers", "once(reason): not tried again on another transport")


def pytest_collection_modifyitems(config, items):
    """Begin with what takes longest, so that at the end no worker waits for another. On another
    transport leave out what it makes no difference to, or does not offer."""
    items.sort(key=lambda item: -_seconds_allowed(item))
    if os.environ.get("DEVICE_API_TRANSPORT", "grpcio") == "grpcio":
        return
    left_out = [item for item in items if item.get_closest_marker("once")]
    items[:] = [item for item in items if item not in set(left_out)]
    config.hook.pytest_deselected(items=left_out)


def _seconds_allowed(item):
    own = item.get_closest_marker("timeout")
    return own.args[0] if own else 0


class _Selector(selectors.DefaultSelector):
    """Moves a clock where another one would wait."""

    now = 1_000.0

    def select(self, timeout=None):
        events = super().select(0)
        if not events:
            if timeout is None:
                raise RuntimeError("everything waits and nothing will ever happen")
            self.now += timeout
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    """A real event loop whose time jumps to the next timer instead of passing."""

    def __init__(self):
        self.virtual = _Selector()
        super().__init__(self.virtual)

    def time(self):
        return self.virtual.now

    def monotonic(self):
        return self.virtual.now

    def wall(self):
        return 1_700_000_000_000_000_000 + int((self.virtual.now - 1_000) * 1e9)

    def advance(self, seconds):
        """Let that much time pass, with all that happens in it."""
        self.run_until_complete(asyncio.sleep(seconds))


@pytest.fixture(scope="session")
def loop_type():
    """For tests that need many loops."""
    return VirtualLoop


@pytest.fixture
def virtual_loop():
    """A loop on which waiting takes no time; it is also a clock."""
    loop = VirtualLoop()
    yield loop
    loop.close()


@pytest.fixture(scope="session")
def promtool():
    """The path of Prometheus's checker."""
    return installed("promtool")


@pytest.fixture(scope="session")
def prometheus():
    """The path of Prometheus."""
    return installed("prometheus")


@pytest.fixture(scope="session")
def chromium():
    """The path of a browser. It is large, so that it is nowhere required."""
    if path := shutil.which("chromium"):
        return path
    pytest.skip("chromium is not installed (Debian: apt install chromium)")


def installed(program):
    """The program's path. Without it the test is skipped, except in CI."""
    if path := shutil.which(program):
        return path
    text = f"{program} is not installed (Debian: apt install prometheus)"
    if os.environ.get("CI"):
        pytest.fail(text)
    pytest.skip(text)


@pytest.fixture
def root_logger():
    """The root logger, as it was afterwards."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    levels = {name: logging.getLogger(name).level for name in ("asyncio", "grpc")}
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, old in levels.items():
        logging.getLogger(name).setLevel(old)
