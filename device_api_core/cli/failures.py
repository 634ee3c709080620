"""What went wrong, as one line for people with a hint and an exit code."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import IO, Any

import click

from device_api_core.cli.session import Session
from device_api_core.client.errors import (
    DeadlineExceeded,
    DeviceApiError,
    LimitExceeded,
    NotFound,
    NotServed,
    Unavailable,
    Unreachable,
)
from device_api_core.client.targets import socket_path


class Failure(click.ClickException):
    """The server said no, or what was named does not exist. Ends the command with a hint on what
    to do about it."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def show(self, file: IO[Any] | None = None) -> None:
        """Print both to standard error."""
        click.echo(f"{click.style('error:', fg='red')} {self.message}", file=file, err=True)
        if self.hint:
            click.echo(f"hint: {self.hint}", file=file, err=True)


class NoAnswer(Failure):
    """No server answers. Exit code 2 is click's own, for a wrong command line."""

    exit_code = 3


def explain(error: DeviceApiError, session: Session) -> Failure:
    """The failure that an error of the client is to the person at the terminal."""
    if isinstance(error, Unreachable):
        why, hint = diagnose(error.target, error.message)
        where = f"no server answers at {error.target}: {why}"
        hint = f"{hint}, or name another address with {_option(error.target, session)}"
        return NoAnswer(where, hint=hint)
    if isinstance(error, DeadlineExceeded):
        hint = "a longer wait: --timeout; whether the server is well: its log and its /readyz"
        return NoAnswer(error.message, hint=hint)
    return Failure(" ".join(error.message.split()), hint=_hint(error))


def reason_of(error: Exception) -> str:
    """An error in one line, without the hint of :func:`explain`."""
    if isinstance(error, Unreachable):
        return f"no server answers at {error.target}: {diagnose(error.target, error.message)[0]}"
    return " ".join(str(error).split())


def _hint(error: DeviceApiError) -> str:
    if isinstance(error, NotServed):
        return (
            "this command needs the providers' socket: --provider-server or "
            "DEVICE_API_PROVIDER_SOCKET"
        )
    if isinstance(error, NotFound):
        return "`device-api get gpus` and `device-api providers` list what there is"
    if isinstance(error, LimitExceeded):
        return "the server protects itself; try again a little later"
    if isinstance(error, Unavailable):
        return "the server runs but cannot vouch for its GPUs now; `device-api version` says why"
    return ""


def diagnose(target: str, message: str) -> tuple[str, str]:
    """Why nobody answers at a target, and what to do, from what can be seen from here."""
    path = socket_path(target)
    if path is None:
        return " ".join(message.split()), "check that device-api-server listens there"
    try:
        found = path.stat()
    except FileNotFoundError:
        return "the socket does not exist", "start device-api-server"
    except PermissionError:
        return _closed(path.parent, "its directory cannot be entered by")
    except OSError as error:
        return f"the socket cannot be looked at ({error.strerror})", "check the path"
    if not stat.S_ISSOCK(found.st_mode):
        return "there is a file, but it is no socket", "check the path"
    if not os.access(path, os.R_OK | os.W_OK):
        return _closed(path, "the socket exists, but may not be opened by")
    return (
        "the socket exists, but nobody listens (a server that was killed leaves it behind)",
        "start device-api-server",
    )


def _closed(path: Path, what: str) -> tuple[str, str]:
    return f"{what} uid {os.geteuid()}{_owner(path)}", "run this as its owner or group"


def _owner(path: Path) -> str:
    try:
        found = path.stat()
    except OSError:
        return ""
    return f" (uid {found.st_uid}, gid {found.st_gid}, mode {stat.S_IMODE(found.st_mode):04o})"


def _option(target: str, session: Session) -> str:
    if target == session.provider_server and target != session.server:
        return "--provider-server or DEVICE_API_PROVIDER_SOCKET"
    return "--server or NVIDIA_DEVICE_API"
