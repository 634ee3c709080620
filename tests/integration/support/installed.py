"""Real installed plugins: a directory of modules and metadata to put on ``PYTHONPATH``."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

HEAD = """
import os, sys, threading, time
from device_api_core.plugins import Provider, hookimpl
from device_api_core.resources import Condition, ConditionStatus, GpuSpec

TRUE, FALSE = ConditionStatus.TRUE, ConditionStatus.FALSE

class Base(Provider):
    contract_version = 1
    interval_seconds = 10.0
    def __init__(self, options): self.options = options
    def clear(self, gpu, type): pass
"""

GOOD = """
class Good(Base):
    name = "{name}"
    types = ("{type}",)
    def run(self, sink, stop):
        sink.register("gpu-{name}", GpuSpec())
        sink.set_condition("gpu-{name}", Condition("{type}", TRUE))
        sink.synced()
        sink.alive("works with " + repr(dict(self.options)))
        while not stop.wait(0.5):
            sink.alive()
    def clear(self, gpu, type):
        print("cleared", gpu, type, file=sys.stderr, flush=True)

@hookimpl
def device_api_provider(options):
    return Good(options)
"""


def good(name: str, type_: str = "") -> str:
    """The source of a plugin that works."""
    words = "".join(word.capitalize() for word in name.split("-"))
    return GOOD.format(name=name, type=type_ or f"{words}Healthy")


class Installed:
    """A directory to which plugins are installed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()

    def add(
        self,
        name: str,
        source: str,
        *,
        distribution: str = "",
        group: str = "device_api.providers",
    ) -> Installed:
        """Install a plugin of that name; ``source`` follows a common head."""
        distribution = distribution or f"demo_{name.replace('-', '_')}"
        (self.directory / f"{distribution}.py").write_text(HEAD + dedent(source))
        metadata = self.directory / f"{distribution}-1.2.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n"
        )
        (metadata / "entry_points.txt").write_text(f"[{group}]\n{name} = {distribution}\n")
        return self
