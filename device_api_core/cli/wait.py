"""``device-api wait gpu``: until something is true of some GPUs."""

from __future__ import annotations

import math
import queue
import time

import click

from device_api_core.cli.ages import format_age
from device_api_core.cli.completion import complete_gpus
from device_api_core.cli.durations import DurationType
from device_api_core.cli.failures import Failure, NoAnswer
from device_api_core.cli.following import Outage, following
from device_api_core.cli.goals import Goal, GoalType
from device_api_core.cli.groups import KindGroup
from device_api_core.cli.screen import StatusLine
from device_api_core.cli.session import Session, pass_session
from device_api_core.client import GpuInformer
from device_api_core.client.errors import NotSynced
from device_api_core.resources import Gpu

_LOOK_SECONDS = 1.0


@click.group(cls=KindGroup)
def wait() -> None:
    """Wait until something is true.

    \b
    Example:
      device-api wait gpus --all --for=condition=Ready --timeout=5m
    """


@wait.command("gpus")
@click.argument("names", nargs=-1, metavar="NAME...", shell_complete=complete_gpus)
@click.option(
    "--for",
    "goal",
    type=GoalType(),
    required=True,
    metavar="GOAL",
    help="condition=TYPE[=true|false|unknown], create, delete, or jsonpath='{PATH}'[=VALUE].",
)
@click.option("--all", "every", is_flag=True, help="Every GPU there is when the wait begins.")
@click.option(
    "--timeout",
    type=DurationType(),
    default="30s",
    show_default=True,
    metavar="DURATION",
    help="How long, for all of them together: 90s, 5m, 1h30m. 0 looks once, less than 0 waits "
    "for ever.",
)
@pass_session
def wait_gpus(
    session: Session, names: tuple[str, ...], goal: Goal, every: bool, timeout: float
) -> None:
    """Wait until the goal is met by each GPU, and print each that meets it.

    A GPU that is not there is an error at once, unless the goal is create or delete. Restarts of
    the server are waited out. On a terminal a line says what is missing.

    \b
    Examples:
      device-api wait gpu gpu-1b2c... --for=condition=Ready
      device-api wait gpu gpu-1b2c... --for=condition=XidHealthy=false --timeout=-1s
      device-api wait gpus --all --for=condition=Ready --timeout=5m
      device-api wait gpu gpu-1b2c... --for=create --timeout=2m
      device-api wait gpu gpu-1b2c... --for=jsonpath='{.status.recommendedAction}'=RESTART_BM

    \b
    Exit codes:
      0  all have met it
      1  the time is over, or a GPU does not exist
      2  wrong usage
      3  no server has answered in all that time
    """
    if bool(names) is every:
        raise click.UsageError("name the GPUs to wait for, or give --all")
    with following(session) as informer:
        Wait(session, informer, goal, timeout).run(names)


class Wait:
    """One wait. ``timeout_seconds`` less than 0 is no limit."""

    def __init__(
        self, session: Session, informer: GpuInformer, goal: Goal, timeout_seconds: float
    ) -> None:
        self._informer = informer
        self._goal = goal
        self._timeout_seconds = timeout_seconds if timeout_seconds >= 0 else math.inf
        self._deadline = time.monotonic() + self._timeout_seconds
        self._at_least_once = time.monotonic() + session.timeout_seconds
        self._outage = Outage(informer, session)
        self._line = StatusLine()
        self._changes: queue.SimpleQueue[tuple[str, Gpu | None]] = queue.SimpleQueue()
        # Those that have not met the goal, as they were last seen.
        self._pending: dict[str, Gpu | None] = {}

    def run(self, names: tuple[str, ...]) -> None:
        """Raises Failure when the time is over or a GPU does not exist."""
        try:
            self._sync()
            self._begin(names)
            while self._pending:
                self._look()
        finally:
            self._line.clear()

    def _sync(self) -> None:
        # A wait that looks only once still has to ask.
        deadline = max(self._deadline, self._at_least_once if not self._timeout_seconds else 0)
        while not self._informer.has_synced:
            seconds = min(_LOOK_SECONDS, deadline - time.monotonic())
            if seconds <= 0:
                hint = "start device-api-server, or name another address with --server"
                raise NoAnswer(self._outage.why, hint=hint)
            try:
                self._informer.wait_for_sync(seconds)
            except NotSynced:
                self._line.show(f"waiting for the server: {self._outage.why}")

    def _begin(self, names: tuple[str, ...]) -> None:
        put = self._changes.put
        self._informer.add_handler(
            on_add=lambda gpu: put((gpu.name, gpu)),
            on_update=lambda _, gpu: put((gpu.name, gpu)),
            on_delete=lambda gpu: put((gpu.name, None)),
        )
        # After the handler was added, so that a GPU that goes now is not missed by both.
        known = self._informer.lister.snapshot.objects
        wanted = names or tuple(sorted(known))
        if missing := [name for name in dict.fromkeys(wanted) if name not in known]:
            self._refuse(missing)
        if not wanted and self._goal.must_exist:
            raise Failure("there is no GPU to wait for")
        for name in dict.fromkeys(wanted):
            self._pending[name] = None
            self._note(name, known.get(name))

    def _refuse(self, missing: list[str]) -> None:
        if self._goal.must_exist:
            hint = "`device-api get gpus` lists them; --for=create waits for one that is to come"
            raise Failure(f"no GPU is named {', '.join(missing)}", hint=hint)

    def _look(self) -> None:
        left = self._deadline - time.monotonic()
        self._line.show(self._missing(left))
        try:
            self._note(*self._changes.get(timeout=max(0.0, min(left, _LOOK_SECONDS))))
        except queue.Empty:
            if self._deadline <= time.monotonic():
                raise self._too_late() from None

    def _note(self, name: str, gpu: Gpu | None) -> None:
        if name not in self._pending:
            return
        self._pending[name] = gpu
        if self._goal.met(gpu):
            del self._pending[name]
            self._line.clear()
            click.echo(f"gpu/{name} condition met")

    def _missing(self, left: float) -> str:
        (name, gpu), *others = self._pending.items()
        more = f" and {len(others)} more" if others else ""
        time_left = "" if math.isinf(left) else f", {format_age(left)} left"
        away = f"; {why}" if (why := self._outage.why) else ""
        return f"waiting for {self._goal}: {name} {self._goal.state(gpu)}{more}{time_left}{away}"

    def _too_late(self) -> Failure:
        states = ", ".join(f"{n} {self._goal.state(gpu)}" for n, gpu in self._pending.items())
        away = f"; {why}" if (why := self._outage.why) else ""
        if not self._timeout_seconds:
            return Failure(f"not met: {self._goal}: {states}{away}")
        seconds = f"{self._timeout_seconds:g}"
        return Failure(f"timed out after {seconds}s waiting for {self._goal}: {states}{away}")
