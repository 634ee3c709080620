"""How GPUs are printed: what ``-o`` can be, and the printer that each of them is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path as File
from typing import Any, Protocol

import click
from click.shell_completion import CompletionItem

from device_api_core.cli.columns import NARROW, WIDE, Show
from device_api_core.cli.failures import Failure
from device_api_core.cli.jsonpath import (
    BadTemplate,
    JsonPathError,
    Path,
    Template,
    as_text,
    parse_path,
    parse_template,
)
from device_api_core.cli.output import (
    as_json_line,
    as_yaml,
    print_data,
    print_lines,
    without_equals,
)
from device_api_core.cli.tables import Table
from device_api_core.client import EventType, GpuEvent, GpuList
from device_api_core.client.convert import gpu_as_json

Columns = Mapping[str, Callable[[GpuEvent], str]]

_WORDS = ("table", "wide", "json", "yaml", "name")
_TEMPLATES = ("jsonpath", "jsonpath-file", "custom-columns", "custom-columns-file")
# A comma inside of brackets or quotes belongs to the path.
_COLUMN = re.compile(r"""((?:[^,\['"]|\[(?:[^\]'"]|'[^']*'|"[^"]*")*\]|'[^']*'|"[^"]*")*)(?:,|$)""")


class Printer(Protocol):
    """Prints GPUs in one format."""

    def snapshot(self, gpus: GpuList, *, single: bool) -> None:
        """All at once; ``single`` is one GPU that was asked for by its name."""

    def rows(self, events: Iterable[GpuEvent]) -> None:
        """One by one, as a stream goes on."""


@dataclass(slots=True)
class TablePrinter:
    """Columns; the headings come once."""

    table: Table[GpuEvent]
    headings: bool
    with_events: bool

    def snapshot(self, gpus: GpuList, *, single: bool) -> None:
        self.rows(present(gpus))

    def rows(self, events: Iterable[GpuEvent]) -> None:
        events = list(events)
        if not events:
            return
        lines = self.table.lines(events, headings=self.headings)
        if self.headings:
            click.echo(lines.pop(0))
            self.headings = False
        for event, line in zip(events, lines, strict=True):
            gone = event.type is EventType.DELETED and not self.with_events
            click.echo(line + "   (deleted)" if gone else line)


@dataclass(frozen=True, slots=True)
class DataPrinter:
    """JSON or YAML. A stream has one object in a line, or one document, for each GPU."""

    output: str
    with_events: bool

    def snapshot(self, gpus: GpuList, *, single: bool) -> None:
        if not single:
            print_data(gpus.as_json(), self.output)
        elif gpus.items:
            print_data(gpu_as_json(gpus.items[0]), self.output)

    def rows(self, events: Iterable[GpuEvent]) -> None:
        for event in events:
            data = event_data(event, with_events=self.with_events)
            click.echo(as_json_line(data) if self.output == "json" else f"---\n{as_yaml(data)}")


class NamePrinter:
    """``gpu/NAME``, which other commands take."""

    def snapshot(self, gpus: GpuList, *, single: bool) -> None:
        self.rows(present(gpus))

    def rows(self, events: Iterable[GpuEvent]) -> None:
        print_lines(f"gpu/{event.gpu.name}" for event in events)


@dataclass(frozen=True, slots=True)
class TemplatePrinter:
    """A JSONPath template. As in kubectl it gets the whole list unless one GPU was named, and the
    line breaks are its own; in a stream it gets each GPU, and ends at least the line."""

    template: Template
    with_events: bool

    def snapshot(self, gpus: GpuList, *, single: bool) -> None:
        if not single:
            click.echo(self._text(gpus.as_json()), nl=False)
        elif gpus.items:
            click.echo(self._text(gpu_as_json(gpus.items[0])), nl=False)

    def rows(self, events: Iterable[GpuEvent]) -> None:
        for event in events:
            text = self._text(event_data(event, with_events=self.with_events))
            click.echo(text, nl=not text.endswith("\n"))

    def _text(self, data: object) -> str:
        try:
            return self.template.render(data)
        except JsonPathError as error:
            hint = "`-o json` shows what the template is applied to"
            raise Failure(f"the template does not fit: {error}", hint=hint) from error


@dataclass(frozen=True, slots=True)
class Format:
    """A choice of ``-o``: one of the words, a template, or columns by their headings."""

    word: str
    template: Template | None = None
    columns: tuple[tuple[str, Path], ...] = ()

    def printer(self, *, headings: bool, with_events: bool) -> Printer:
        """What prints so; ``with_events`` says of each GPU in a stream what happened to it."""
        if self.template is not None:
            return TemplatePrinter(self.template, with_events)
        if self.word in {"json", "yaml"}:
            return DataPrinter(self.word, with_events)
        if self.word == "name":
            if with_events:
                raise click.UsageError("--output-watch-events: -o name has no place for them")
            return NamePrinter()
        kind: Columns = {"EVENT": lambda event: event.type} if with_events else {}
        return TablePrinter(Table({**kind, **self._columns()}), headings, with_events)

    def _columns(self) -> Columns:
        if self.columns:
            return {heading: _finder(path) for heading, path in self.columns}
        shows = WIDE if self.word == "wide" else NARROW
        return {heading: _of_gpu(show) for heading, show in shows.items()}


class FormatType(click.ParamType[Format]):
    """``-o``."""

    name = "format"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """What the help shows."""
        return f"[{'|'.join(_WORDS)}|jsonpath[-file]=...|custom-columns[-file]=...]"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The words, and the beginnings of the rest."""
        known = (*_WORDS, *(f"{name}=" for name in _TEMPLATES))
        return [CompletionItem(word) for word in known if word.startswith(incomplete)]

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Format:
        """Parse it; what cannot be parsed is wrong usage."""
        if isinstance(value, Format):
            return value
        word, equals, rest = without_equals(value).partition("=")
        if word in _WORDS and not equals:
            return Format(word)
        if word not in _TEMPLATES:
            known = ", ".join((*_WORDS, *(f"{name}=..." for name in _TEMPLATES)))
            self.fail(f"{value!r} is none of {known}", param, ctx)
        if not rest:
            what = "file" if word.endswith("-file") else "template"
            self.fail(f"{word}= needs a {what} after it", param, ctx)
        try:
            return _with_template(word, rest)
        except (BadTemplate, ValueError) as error:
            self.fail(str(error), param, ctx)
        except OSError as error:
            self.fail(f"{rest} cannot be read: {error.strerror}", param, ctx)


def present(gpus: GpuList) -> list[GpuEvent]:
    """What is there, as events."""
    return [GpuEvent(EventType.ADDED, g, g.metadata.resource_version) for g in gpus.items]


def event_data(event: GpuEvent, *, with_events: bool) -> dict[str, Any]:
    """A GPU in JSON form, within its event if wanted."""
    data = gpu_as_json(event.gpu)
    return {"type": str(event.type), "object": data} if with_events else data


def _with_template(word: str, rest: str) -> Format:
    text = File(rest).read_text(encoding="utf-8") if word.endswith("-file") else rest
    if word.startswith("jsonpath"):
        return Format(word, template=parse_template(text))
    return Format(word, columns=_table_of(text) if word.endswith("-file") else _columns_of(text))


def _columns_of(text: str) -> tuple[tuple[str, Path], ...]:
    """``HEADING:PATH,HEADING:PATH``."""
    columns, at = [], 0
    while at < len(text):
        found = _COLUMN.match(text, at)
        if found is None or not found[1]:
            raise ValueError(f"{text[at:]!r} is not HEADING:PATH,HEADING:PATH")
        columns.append(found[1].partition(":")[::2])
        at = found.end()
    return _checked(columns)


def _table_of(text: str) -> tuple[tuple[str, Path], ...]:
    """A line of headings, and under each its path."""
    lines = [line.split() for line in text.splitlines() if line.strip()]
    if len(lines) != 2 or len(lines[0]) != len(lines[1]):
        raise ValueError(
            "a file of columns has two lines, headings and paths, with as many words in each"
        )
    return _checked(list(zip(*lines, strict=True)))


def _checked(columns: list[tuple[str, str]]) -> tuple[tuple[str, Path], ...]:
    if bare := [heading for heading, path in columns if not heading or not path]:
        raise ValueError(f"{bare[0]!r} is not HEADING:PATH")
    headings = [heading for heading, _ in columns]
    if len(set(headings)) < len(headings):
        raise ValueError("two columns have the same heading")
    return tuple((heading, parse_path(path)) for heading, path in columns)


def _of_gpu(show: Show) -> Callable[[GpuEvent], str]:
    return lambda event: show(event.gpu)


def _finder(path: Path) -> Callable[[GpuEvent], str]:
    def show(event: GpuEvent) -> str:
        try:
            found = path.find(gpu_as_json(event.gpu))
        except JsonPathError as error:
            raise Failure(f"a column does not fit {event.gpu.name}: {error}") from error
        return ",".join(map(as_text, found)) or "<none>"

    return show
