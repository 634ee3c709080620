"""``device-api top gpus``: the health of all GPUs, live."""

from __future__ import annotations

import sys
import time
from contextlib import suppress

import click

from device_api_core.cli.board import Board
from device_api_core.cli.following import Outage, following
from device_api_core.cli.groups import KindGroup
from device_api_core.cli.output import print_lines
from device_api_core.cli.screen import Screen, is_screen
from device_api_core.cli.session import Session
from device_api_core.client import GpuInformer

_REDRAW_SECONDS = 1.0


@click.group(cls=KindGroup)
def top() -> None:
    """Watch the health of the GPUs on the whole screen.

    \b
    Example:
      device-api top gpus
    """


@top.command("gpus")
@click.option("--once", is_flag=True, help="Print it once and end, as without a terminal.")
@click.pass_context
def top_gpus(ctx: click.Context, once: bool) -> None:
    """Show all GPUs, the worst first, until q or Ctrl-C.

    PROVIDER is who said what READY repeats; AGE is how long it has been so. Changes appear as the
    server sends them. While it is away, the last known state stays, without its colours and with
    its age. What does not fit the terminal is left out, from the right of this list: NAME, READY,
    REASON, ACTION, AGE, PROVIDER, MESSAGE. NO_COLOR=1 turns colours off.

    \b
    Examples:
      device-api top gpus
      device-api top gpus --once
      NO_COLOR=1 device-api --server ./run/device.sock top gpus
    """
    session = ctx.find_object(Session)
    assert session is not None
    if once or not is_screen(sys.stdout):
        with session.connect() as clients:
            listed = clients.v1alpha1.gpus.list()
        print_lines(Board(listed.items).lines())
        return
    with following(session) as informer, Screen() as screen, suppress(KeyboardInterrupt):
        outage = Outage(informer, session)
        _follow(informer, screen, outage, coloured=ctx.color is not False)


def _follow(informer: GpuInformer, screen: Screen, outage: Outage, *, coloured: bool) -> None:
    # The store is what is drawn; a change only says that it is time to.
    informer.add_handler(
        on_add=lambda _: screen.wake(),
        on_update=lambda *_: screen.wake(),
        on_delete=lambda _: screen.wake(),
    )
    while True:
        gpus = informer.lister.list() if informer.has_synced else None
        board = Board(gpus, age_seconds=informer.age_seconds, outage=outage.why)
        columns, lines = screen.size
        screen.draw(board.lines(columns, lines, coloured=coloured))
        if "q" in screen.wait(_until_next_second()).lower():
            return


def _until_next_second() -> float:
    # So that all ages move at once, and evenly.
    return _REDRAW_SECONDS - time.time() % _REDRAW_SECONDS
