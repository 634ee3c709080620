"""The `fake-nvml` command."""

from __future__ import annotations

from typing import Any

import click

from device_api_fake_nvml.cli import calls, events, gpus, hardware, nodes
from device_api_fake_nvml.errors import (
    FakeNodeError,
    FunctionNotFound,
    GpuNotFound,
    SignalNotFound,
)


class FakeNvml(click.Group):
    """Shows our errors as the command line's own."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (FunctionNotFound, GpuNotFound, SignalNotFound) as error:
            raise click.UsageError(str(error)) from error
        except (FakeNodeError, OSError) as error:
            raise click.ClickException(str(error)) from error

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order below, which is that of a first use


@click.group(cls=FakeNvml, context_settings={"max_content_width": 100})
@click.version_option(package_name="device-api-fake-nvml", prog_name="fake-nvml")
def main() -> None:
    """Simulate a node of NVIDIA GPUs, and break it while clients run.

    \b
    Make a node of eight H100 and look at it with any NVML client:
      fake-nvml create ./node
      fake-nvml run ./node -- python -c 'from pynvml import *; nvmlInit();
                                            print(nvmlDeviceGetCount())'

    \b
    Break it. A client sees it at once:
      fake-nvml xid ./node --gpu 3 79           an event
      fake-nvml lose ./node --gpu 3             every call returns GPU_IS_LOST
      fake-nvml ecc ./node --gpu 1 --count 2    uncorrectable memory errors
      fake-nvml hang ./node --seconds 30        every call blocks
      fake-nvml fail ./node --function nvmlDeviceGetUUID --gpu 3 --error 999 --times 2
      fake-nvml status ./node

    \b
    Mend it:
      fake-nvml reset ./node --gpu 3
      fake-nvml clear ./node

    A GPU is named by its number, which is its place in the node when that was made, or by its UUID.
    Driver version and product names always say SIMULATED.
    """


for module in (nodes, events, gpus, calls, hardware):
    for command in module.COMMANDS:
        main.add_command(command)
