"""The command: ``python -m benchmarks``."""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import count
from pathlib import Path

import click

from benchmarks import (
    bridge,
    device_plugin,
    idle,
    limits,
    memory,
    propagation,
    sizing,
    startup,
    unary,
    xid,
)
from benchmarks.peer import ratios, scaling
from benchmarks.processes import Failed, LoadClient, stopping
from benchmarks.report import MISSED, Curve, Figure, Measured, as_json, growth_table, table
from benchmarks.workbench import Workbench

BENCHMARKS: dict[str, Callable[[Workbench], Sequence[Measured]]] = {
    "startup": startup.run,
    "memory": memory.run,
    "idle": idle.run,
    "unary": unary.run,
    "propagation": propagation.run,
    "xid": xid.run,
    "device-plugin": device_plugin.run,
    "bridge": bridge.run,
    "fairness": limits.run_fairness,
    "limits": limits.run_memory,
    "sizing": sizing.run,
    "growth": memory.run_growth,
    "peer": ratios.run,
    "scaling": scaling.run,
}

_LOG_LINES = 20


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--quick", is_flag=True, help="Few rounds: shows that it works, not how fast.")
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(list(BENCHMARKS)),
    help="Run this one; repeatable. All by default.",
)
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), help="Write the figures there too."
)
def main(quick: bool, only: tuple[str, ...], json_file: Path | None) -> None:
    """Measure the server beside a bare grpc.aio server that returns constant bytes."""
    click.echo(f"{platform_line()}{', quick: do not quote these figures' if quick else ''}\n")
    measured: list[Measured] = []
    for name, run in BENCHMARKS.items():
        if not only or name in only:
            measured += _run(run, quick=quick)
    figures = [one for one in measured if isinstance(one, Figure)]
    curves = [one for one in measured if isinstance(one, Curve)]
    for beside in dict.fromkeys(figure.beside for figure in figures):
        click.echo(f"\n{table(f for f in figures if f.beside == beside)}")
    for axis in dict.fromkeys(curve.axis for curve in curves):
        click.echo(f"\n{growth_table([c for c in curves if c.axis == axis])}")
    if json_file is not None:
        facts = {"when": datetime.now(UTC).isoformat(timespec="seconds"), "quick": quick}
        facts["machine"] = platform_line()
        found = {"figures": as_json(figures), "curves": as_json(curves)}
        json_file.write_text(json.dumps(facts | found, indent=2) + "\n")
    missed = sum(figure.verdict == MISSED for figure in figures)
    if missed:
        click.echo(f"\n{missed} goals missed")


def platform_line() -> str:
    """What the figures depend on."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("grpcio", "protobuf"))
    return (
        f"{os.cpu_count()} CPUs ({platform.machine()}), {platform.system()} "
        f"{platform.release().partition('-')[0]}, CPython {platform.python_version()}, {packages}"
    )


def _run(run: Callable[[Workbench], Sequence[Measured]], *, quick: bool) -> Sequence[Measured]:
    def say(text: str) -> None:
        click.echo(f"... {text}", err=True)

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-")))
        load = stack.enter_context(stopping(LoadClient()))
        bench = Workbench(folder, load, stack, quick, say, count())
        try:
            return run(bench)
        except Failed as failure:
            logs = [path.read_text().splitlines() for path in sorted(folder.glob("*/log"))]
            last = "\n".join(line for log in logs for line in log[-_LOG_LINES:])
            click.echo(f"{failure}\n{last}", err=True)
            sys.exit(1)


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
