"""Groups of commands: singular and plural alike, and the plugins' own commands."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import click

from device_api_core.cli.failures import Failure, explain
from device_api_core.errors import DeviceApiError

_CONTRIBUTIONS = "device_api_core.cli.groups"


class KindGroup(click.Group):
    """Commands named after kinds: ``gpu`` and ``gpus`` are the same."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name in the singular or the plural."""
        for name in (cmd_name, f"{cmd_name}s", cmd_name.removesuffix("s")):
            if (command := super().get_command(ctx, name)) is not None:
                return command
        return None


class RootGroup(click.Group):
    """The commands of the core, then those of installed plugins.

    Plugins are looked for only when a name is not the core's or all names are to be shown, so
    that the core's commands neither wait for them nor depend on them.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, the core's first."""
        return [*self.commands, *_contributions(ctx).commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command of the core, in the singular or the plural, else the one that the plugin of
        that name contributes."""
        for name in (cmd_name, f"{cmd_name}s"):
            if (command := self.commands.get(name)) is not None:
                return command
        found = _contributions(ctx)
        if (why := found.broken.get(cmd_name)) is not None:
            raise Failure(f"the plugin {cmd_name} cannot be loaded: {why}")
        return found.commands.get(cmd_name)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Also name the plugins that could not be loaded."""
        if broken := _contributions(ctx).broken:
            with formatter.section("Unavailable plugins"):
                formatter.write_dl(list(broken.items()))
        super().format_epilog(ctx, formatter)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an error of this project becomes one line and an exit code."""
        try:
            return super().invoke(ctx)
        except DeviceApiError as error:
            raise explain(error, ctx.obj) from error


@dataclass(frozen=True, slots=True)
class _Contributions:
    """The plugins' commands by name, and by name why others have none."""

    commands: dict[str, click.Command] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, command: object) -> None:
        if isinstance(command, click.Command):
            self.commands[name] = command
        elif command is not None:
            self.broken[name] = f"it contributes {command!r}, which is no click command"


def _contributions(ctx: click.Context) -> _Contributions:
    """Looked up once in a run."""
    if _CONTRIBUTIONS not in ctx.meta:
        ctx.meta[_CONTRIBUTIONS] = _discovered()
    found: _Contributions = ctx.meta[_CONTRIBUTIONS]
    return found


def _discovered() -> _Contributions:
    # Reading the metadata of all installed distributions takes longer than most commands.
    from device_api_core.plugins.discovery import discover

    found = _Contributions()
    for plugin in discover():
        if plugin.error:
            found.broken[plugin.name] = " ".join(plugin.error.split())
            continue
        try:
            found.add(plugin.name, plugin.commands)
        except Exception as error:  # noqa: BLE001 - a plugin's code may do anything; it is shown
            found.broken[plugin.name] = f"{type(error).__name__}: {error}"
    return found
