"""``device-api publish`` and ``publishers``: for those who cannot speak gRPC."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from http import HTTPStatus
from typing import TYPE_CHECKING

import click

from device_api_core.cli.failures import Failure
from device_api_core.cli.output import output_option, print_data, print_lines
from device_api_core.cli.session import Session, pass_session
from device_api_core.cli.tables import Table
from device_api_core.configuration import read_publisher
from device_api_core.errors import DeviceApiError
from device_api_core.logs import set_up
from device_api_core.settings import LOG_FORMATS

if TYPE_CHECKING:
    from device_api_core.exposition import Exposition
    from device_api_core.plugins.publication import Publication
    from device_api_core.plugins.publishers import PublisherPlugin
    from device_api_core.plugins.publishing import Publisher
    from device_api_core.published import Published
    from device_api_core.server.http import Page

logger = logging.getLogger(__name__)


@click.command("publish")
@click.argument("name")
@click.option(
    "--config",
    envvar="DEVICE_API_CONFIG",
    show_envvar=True,
    metavar="FILE",
    help="Read the publisher's options from the table [publishers.NAME] of this TOML file. It may "
    "be the server's own file.",
)
@click.option(
    "--metrics-address",
    default="",
    metavar="HOST:PORT",
    help="Serve /metrics and /healthz there; :PORT is every address of this host. Default: "
    "nowhere.",
)
@click.option(
    "--grace",
    "grace_seconds",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    default=60.0,
    show_default=True,
    help="How long the server may be silent, or what was good in doubt, before that is published: "
    "longer than an upgrade takes. Bad news never waits.",
)
@click.option("--once", is_flag=True, help="Publish what is so now, once, and end.")
@click.option("--log-format", type=click.Choice(LOG_FORMATS), default="text", show_default=True)
@click.option("-v", "--verbosity", count=True, help="Also log how things come about.")
@pass_session
def publish(
    session: Session,
    /,
    name: str,
    config: str | None,
    metrics_address: str,
    grace_seconds: float,
    once: bool,
    log_format: str,
    verbosity: int,
) -> None:
    """Tell others how the GPUs of this node are, by the installed publisher NAME.

    For a sidecar container, a systemd unit, or a first try at the terminal. It reads at the
    consumers' socket (--server), as any consumer does, and goes on over every restart of the
    server. What is published stays when it ends. Logs go to standard error.

    \b
    Examples:
      device-api publish kubernetes
      device-api publish kubernetes --config /etc/device-api/server.toml --metrics-address :9091
      device-api publish kubernetes --once

    \b
    Exit codes:
      0  SIGTERM or SIGINT, and it stopped in good order; with --once: it is published
      1  the publisher is not installed or cannot work, or an option is wrong; with --once: it
         could not be published
      3  with --once: no server answers
      4  a call of the publisher did not end within 5 seconds
      5  a call of the publisher hung for two minutes. Let a supervisor restart this process
         (systemd: Restart=on-failure)
    """
    from device_api_core.published import Published

    set_up(log_format, verbosity)
    try:
        publisher = _prepared(name, read_publisher(config, name) if config else {})
    except DeviceApiError as error:
        raise Failure(error.message) from error
    published = Published(name)
    if once:
        _publish_once(session, publisher, published)
        return
    _run(session, publisher, published, metrics_address, grace_seconds)


def _prepared(name: str, options: dict[str, object]) -> Publisher:
    # Neither gRPC nor the plugins are needed to show the help.
    from device_api_core.plugins.publishers import load_publisher

    publisher = load_publisher(name, options)
    publisher.prepare()
    return publisher


def _publish_once(session: Session, publisher: Publisher, published: Published) -> None:
    with session.connect() as clients:
        gpus = sorted(clients.v1alpha1.gpus.list().items, key=lambda gpu: gpu.name)
    publisher.publish(gpus, stale="", count=published.count)
    logger.info("published", extra={"publisher": publisher.name, "gpus": len(gpus)})


def _run(
    session: Session,
    publisher: Publisher,
    published: Published,
    metrics_address: str,
    grace_seconds: float,
) -> None:
    from device_api_core.plugins.homes import leave
    from device_api_core.plugins.publication import Publication
    from device_api_core.server.beside import serving

    with ExitStack() as stack:
        clients = stack.enter_context(session.connect())
        publication = Publication(publisher, clients, published, grace_seconds=grace_seconds)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: publication.stop())
        where = "none"
        if metrics_address:
            pages = _pages(publication, published)
            where = stack.enter_context(serving(pages, metrics_address, "--metrics-address"))
        logger.info(
            "publishing",
            extra={"publisher": publisher.name, "server": session.server, "metrics": where},
        )
        code = publication.run()
    # Not by returning: a thread in a call would keep the interpreter from ending.
    leave(code)


def _pages(publication: Publication, published: Published) -> dict[str, Callable[[], Page]]:
    from device_api_core.server.http import Page

    @cache
    def exposition() -> Exposition:
        from device_api_core.exposition import Exposition
        from device_api_core.exposition.publishing import registry_of_publisher

        return Exposition(registry_of_publisher(published))

    def metrics() -> Page:
        return Page(HTTPStatus.OK, exposition().text(), exposition().content_type)

    def alive() -> Page:
        if trouble := publication.trouble:
            return Page(HTTPStatus.SERVICE_UNAVAILABLE, f"{trouble}\n".encode())
        return Page(HTTPStatus.OK, b"ok\n")

    return {"/healthz": alive, "/metrics": metrics}


@click.command("publishers")
@output_option("table", "wide", "json", "yaml")
def publishers(output: str) -> None:
    """List the publishers that are installed here; device-api publish NAME runs one.

    \b
    Examples:
      device-api publishers
      device-api publishers -o wide
    """
    from device_api_core.plugins.publishers import discover_publishers

    found = discover_publishers()
    if output in {"json", "yaml"}:
        print_data({"publishers": [_as_data(plugin) for plugin in found]}, output)
    elif found:
        print_lines(Table(_COLUMNS | (_WIDE if output == "wide" else {})).lines(found))
    else:
        click.echo("no publisher is installed", err=True)


def _state(plugin: PublisherPlugin) -> str:
    return "error" if plugin.error else "available"


_COLUMNS: dict[str, Callable[[PublisherPlugin], str]] = {
    "NAME": lambda p: p.name,
    "STATE": _state,
    "VERSION": lambda p: p.version,
    "CONTRACT": lambda p: str(p.contract_version or ""),
    "SUMMARY": lambda p: p.error,
}
_WIDE: dict[str, Callable[[PublisherPlugin], str]] = {
    "DISTRIBUTION": lambda p: p.distribution,
    "ENTRY POINT": lambda p: p.entry_point,
}


def _as_data(plugin: PublisherPlugin) -> dict[str, object]:
    data = {
        "name": plugin.name,
        "state": _state(plugin),
        "stateReason": plugin.error,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "entryPoint": plugin.entry_point,
        "contractVersion": plugin.contract_version,
    }
    return {key: value for key, value in data.items() if value}
