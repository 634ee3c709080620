"""``device-api get gpus``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import click

from device_api_core.cli.completion import complete_gpus
from device_api_core.cli.failures import Failure
from device_api_core.cli.follow import Follower, until_interrupted
from device_api_core.cli.formats import Format, FormatType, Printer, present
from device_api_core.cli.groups import KindGroup
from device_api_core.cli.jsonpath import Path
from device_api_core.cli.selection import PathType, Selection, SelectorType, Term
from device_api_core.cli.session import Session, pass_session
from device_api_core.client import GpuEvent, GpuList
from device_api_core.client.v1alpha1 import Gpus


@dataclass(frozen=True, slots=True)
class Request:
    """What the options of ``get gpus`` ask for."""

    output: Format
    watch: bool
    watch_only: bool
    output_watch_events: bool
    no_headers: bool
    sort_by: Path | None
    field_selector: tuple[Term, ...]
    unhealthy: bool

    @property
    def streams(self) -> bool:
        """Whether changes follow."""
        return self.watch or self.watch_only

    def selection(self, names: tuple[str, ...]) -> Selection:
        """The GPUs that are wanted."""
        return Selection(names, self.field_selector, self.unhealthy, self.sort_by)

    def printer(self) -> Printer:
        """What prints them."""
        return self.output.printer(
            headings=not self.no_headers, with_events=self.output_watch_events
        )


@click.group(cls=KindGroup)
def get() -> None:
    """Show the GPUs of this node.

    \b
    Examples:
      device-api get gpus
      device-api get gpus --unhealthy -w
      device-api get gpus -o custom-columns=NAME:.metadata.name,UUID:.spec.uuid
    """


@get.command("gpus")
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=complete_gpus)
@click.option("-o", "--output", type=FormatType(), default="table", help="How to print them.")
@click.option("-w", "--watch", is_flag=True, help="Then print each change, until Ctrl-C.")
@click.option("--watch-only", is_flag=True, help="Print only the changes.")
@click.option(
    "--output-watch-events",
    is_flag=True,
    help="With -w: also say whether a GPU was ADDED, MODIFIED or DELETED.",
)
@click.option("--no-headers", is_flag=True, help="Leave out the headings of a table.")
@click.option(
    "--sort-by",
    type=PathType(),
    metavar="PATH",
    help="Order by a field instead of by index, such as .spec.memoryBytes. Changes come as they "
    "happen.",
)
@click.option(
    "--field-selector",
    type=SelectorType(),
    default=(),
    metavar="PATH=VALUE,...",
    help="Only GPUs with these values (=, ==, !=).",
)
@click.option("--unhealthy", is_flag=True, help="Only GPUs whose Ready is not True.")
@pass_session
def get_gpus(session: Session, /, names: tuple[str, ...], **options: Any) -> None:
    """Show all GPUs, or those named.

    AGE is how long Ready has been what it is; ACTION is what the providers recommend. With -w each
    change is one more row. No change is lost between the list and the watch, and a watch that
    breaks is an error. A GPU that no longer matches is shown once more.

    \b
    Examples:
      device-api get gpus
      device-api get gpu gpu-1b2c... -o yaml
      device-api get gpus -w --unhealthy
      device-api get gpus --watch-only -o json --output-watch-events | jq -c '[.type,
        .object.metadata.name]'
      device-api get gpus --field-selector status.recommendedAction=RESTART_BM -o name
      device-api get gpus --sort-by .spec.memoryBytes --no-headers

    \b
    Templates, as in kubectl:
      -o custom-columns='NAME:.metadata.name,READY:.status.conditions[?(@.type=="Ready")].status'
      -o jsonpath='{.items[*].metadata.name}'
      -o jsonpath='{range .items[*]}{.metadata.name}{"\\t"}{.spec.pciBusId}{"\\n"}{end}'
      -o jsonpath-file=FILE, -o custom-columns-file=FILE (headings, and below them the paths)
    """
    request = Request(**options)
    if request.output_watch_events and not request.streams:
        raise click.UsageError("--output-watch-events goes with --watch or --watch-only")
    printer, selection = request.printer(), request.selection(names)
    with session.connect() as clients:
        gpus = clients.v1alpha1.gpus
        found = gpus.list()
        with until_interrupted() if request.streams else nullcontext():
            _show(found, request, selection, printer)
            if missing := selection.missing(found.items):
                raise _unknown(missing)
            if request.streams:
                for event in _changes(gpus, found, selection):
                    printer.rows([event])


def _show(found: GpuList, request: Request, selection: Selection, printer: Printer) -> None:
    shown = GpuList(selection.of(found.items), found.resource_version)
    if not request.streams:
        printer.snapshot(shown, single=selection.single)
        if not shown.items and not selection.names:
            click.echo(_nothing(found), err=True)
    elif not request.watch_only:
        printer.rows(present(shown))


def _unknown(missing: list[str]) -> Failure:
    return Failure(
        f"no GPU is named {', '.join(missing)}",
        hint="names are compared exactly, most are a UUID in lower case; "
        "`device-api get gpus` lists them",
    )


def _nothing(found: GpuList) -> str:
    if found.items:
        return f"none of the {len(found.items)} GPUs of this node matches"
    return "this node has no GPUs that any provider reports"


def _changes(gpus: Gpus, found: GpuList, selection: Selection) -> Iterator[GpuEvent]:
    """The changes after a list of GPUs that are selected, or were until then."""
    matching = {gpu.name for gpu in selection.of(found.items)}
    for event in Follower(gpus, selection.names).changes_since(found):
        name = event.gpu.name
        matched = name in matching
        if selection.matches(event.gpu):
            matching.add(name)
        else:
            matching.discard(name)
        if matched or name in matching:
            yield event
