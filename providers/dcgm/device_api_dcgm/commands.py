"""``device-api dcgm``: what the DCGM provider knows and sees, without the daemon."""

from __future__ import annotations

import json
import threading
import time
import typing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, Field, fields
from importlib import resources
from typing import Any

import click

from device_api_core.errors import DeviceApiError
from device_api_dcgm.exposition import Exposition, Reading, parse
from device_api_dcgm.gpu import DcgmGpu
from device_api_dcgm.health import ROLL_UP, WATCHES, Judge
from device_api_dcgm.options import WARNING, DcgmOptions, redacted
from device_api_dcgm.rules import RULES
from device_api_dcgm.scrape import ScrapeFailed, Scraper
from device_api_dcgm.series import EXPECTED
from device_api_dcgm.tables import PREFIX, RECOVERIES, Effect

_ANY = "any other"
_POLICY = ("row_remap_pending", "ignored_xids", "informational_xids", "fatal_xids")
_REQUEST = (
    *("url", "connect_seconds", "read_seconds", "timeout_seconds", "max_body_bytes"),
    *("ca_file", "cert_file", "key_file", "user", "password_file", "bearer_token_file"),
)

output_option = click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="How to print.",
)


def _codes(_context: click.Context, option: click.Parameter, text: str) -> tuple[int, ...]:
    words = text.replace(",", " ").split()
    if not all(word.isdecimal() for word in words):
        raise click.BadParameter("must be numbers, separated by commas", param=option)
    return tuple(int(word) for word in words)


def _settings(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The provider's settings of these names as options of a command."""
    by_name = {f.name: f for f in fields(DcgmOptions)}
    hints = typing.get_type_hints(DcgmOptions)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for name in reversed(names):
            command = _option(by_name[name], hints[name])(command)
        return command

    return decorate


def _option(setting: Field[Any], hint: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    flag, text = f"--{setting.name.replace('_', '-')}", "As in the configuration."
    if typing.get_origin(hint) is tuple:
        return click.option(flag, default="", callback=_codes, help=text)
    assert setting.default is not MISSING
    return click.option(flag, type=hint, default=setting.default, show_default=True, help=text)


def _judge(settings: dict[str, Any]) -> Judge:
    try:
        return Judge(DcgmOptions(**settings))
    except DeviceApiError as error:
        raise click.ClickException(error.message) from error


@click.group()
def dcgm() -> None:
    """The DCGM provider's rules, and what it sees on this node."""


@dcgm.command()
@_settings(*_REQUEST, *_POLICY)
@output_option
def probe(output: str, **settings: Any) -> None:
    """Scrape dcgm-exporter once and print what the provider makes of it.

    Shows the GPUs, their health watches, the series that are missing, and the conditions that a
    provider would write that sees this scrape first. Needs the exporter, not the daemon.
    """
    judge = _judge(settings)
    began = time.monotonic()
    try:
        body = Scraper(judge.options).fetch(threading.Event()) or b""
    except ScrapeFailed as error:
        raise click.ClickException(f"{redacted(judge.options.url)}: {error}") from error
    scrape = parse(body)
    found = {
        "url": redacted(judge.options.url),
        "seconds": round(time.monotonic() - began, 3),
        "bytes": len(body),
        "skipped_lines": scrape.skipped,
        "lines_not_utf8": scrape.garbled,
        "absent_series": [name for name in EXPECTED if name not in scrape.series],
        "gpus": [_seen(name, reading, judge) for name, reading in _by_index(scrape)],
    }
    if output == "json":
        click.echo(json.dumps(found, indent=2))
    else:
        _print_probe(found)


def _by_index(scrape: Exposition) -> list[tuple[str, Reading]]:
    def order(item: tuple[str, Reading]) -> tuple[float, str]:
        name, reading = item
        return (float("inf") if reading.spec.index is None else reading.spec.index, name)

    return sorted(scrape.gpus.items(), key=order)


def _seen(name: str, reading: Reading, judge: Judge) -> dict[str, Any]:
    gpu = DcgmGpu(name, judge)
    gpu.observe(reading, time.monotonic())
    conditions, action = gpu.status
    spec = reading.spec
    return {
        "name": name,
        "index": spec.index,
        "pci_bus_id": spec.pci_bus_id,
        "product_name": spec.product_name,
        "watches": {watch: said._asdict() for watch, said in sorted(reading.watches.items())},
        "missing_watches": [watch for watch in WATCHES if watch not in reading.watches],
        "conditions": [
            {"type": c.type, "status": str(c.status), "reason": c.reason, "message": c.message}
            for c in conditions
        ],
        "recommended_action": action,
    }


def _print_probe(found: dict[str, Any]) -> None:
    click.echo(f"url             {found['url']}")
    click.echo(f"answer          {found['bytes']} bytes in {found['seconds']} s")
    unread = f"{found['skipped_lines']} no samples, {found['lines_not_utf8']} not UTF-8"
    click.echo(f"bad lines       {unread}")
    click.echo(f"absent series   {', '.join(found['absent_series']) or 'none'}")
    click.echo(f"GPUs            {len(found['gpus'])}")
    for gpu in found["gpus"]:
        index = "?" if gpu["index"] is None else gpu["index"]
        click.echo(f"\nGPU {index}  {gpu['name']}  {gpu['pci_bus_id']}  {gpu['product_name']}")
        click.echo(f"watches missing: {', '.join(gpu['missing_watches']) or 'none'}")
        click.echo(f"recommended action: {gpu['recommended_action'] or 'none'}")
        rows = [tuple(condition.values()) for condition in gpu["conditions"]]
        _print_table(("CONDITION", "STATUS", "REASON", "MESSAGE"), rows)


@dcgm.command()
@_settings(*_POLICY)
@output_option
def mapping(output: str, **settings: Any) -> None:
    """Print what each code does to a GPU's health, what to do about it, and who says so."""
    rows = list(_mapping(_judge(settings)))
    heads = ("kind", "code", "condition", "reason", "effect", "action", "clears", "source")
    if output == "json":
        click.echo(json.dumps([dict(zip(heads, row, strict=True)) for row in rows], indent=2))
        return
    _print_table(tuple(head.upper() for head in heads), rows)


def _mapping(judge: Judge) -> Iterable[tuple[str, ...]]:
    seen_reset = "reset"
    for code in (*judge.codes.rows, judge.codes[_ANY]):
        known = code.name != _ANY
        name, reason = (f"{PREFIX}{code.name}", code.reason) if known else (_ANY, "")
        clears = seen_reset if code.latches else "pass"
        yield "watch", name, "of the watch", reason, "fatal at 20", code.action, clears, code.source
    for xid in judge.xids.rows:
        fatal = xid.effect is Effect.FATAL
        code_, reason = (str(xid.code), xid.reason) if xid.code else (_ANY, "")
        clears = seen_reset if fatal else ""
        yield "xid", code_, ROLL_UP, reason, str(xid.effect), xid.action, clears, xid.source
    for value, asked in RECOVERIES.items():
        driver = WATCHES["DRIVER"]
        yield "recovery", str(value), driver, asked.reason, "fatal", asked.action, "pass", "nvml"
    for rule in RULES.values():
        effect = "inform" if _only_warns(rule.reason, judge) else "fatal"
        clears = seen_reset if rule.latched else "pass"
        type_, code_ = WATCHES[rule.watch], f"{rule.series} {rule.when}"
        action = rule.action if effect == "fatal" else ""
        yield "series", code_, type_, rule.reason, effect, action, clears, rule.source


def _only_warns(reason: str, judge: Judge) -> bool:
    return reason == "RowRemapPending" and judge.options.row_remap_pending == WARNING


@dcgm.command()
def counters() -> None:
    """Print a counters file for dcgm-exporter that has the series the provider needs."""
    file = resources.files(__package__) / "counters.csv"
    click.echo(file.read_text(encoding="utf-8"), nl=False)


def _print_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    lines = [heads, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(cells).rstrip())
