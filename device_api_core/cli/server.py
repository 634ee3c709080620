"""device-api-server: its options, what they mean, and what is wrong with them.

A plain command line is read by :mod:`~device_api_core.cli.arguments` instead."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from typing import Any

import click

from device_api_core import __version__
from device_api_core.configuration import read_file
from device_api_core.errors import DeviceApiError, SettingsError
from device_api_core.settings import LOG_FORMATS, Settings

_DIGITS = re.compile(r"[0-9]+")
_SEPARATORS = re.compile(r"[,\s]+")


class Verbosity(click.ParamType[int]):
    """A number, also in the form ``-v=2`` that Go programs accept."""

    name = "integer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value).removeprefix("=")
        if not _DIGITS.fullmatch(text):
            self.fail(f"{value!r} is not a number", param, ctx)
        return int(text)


class XidList(click.ParamType[tuple[int, ...]]):
    """XID numbers, separated by commas or spaces."""

    name = "xids"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        items = [item for item in _SEPARATORS.split(str(value)) if item]
        for item in items:
            if not _DIGITS.fullmatch(item):
                self.fail(f"{item!r} is not an XID number", param, ctx)
        return tuple(int(item) for item in items)


def _use_file(ctx: click.Context, _param: click.Parameter, path: str | None) -> str | None:
    """Make the file's values the defaults of every other option."""
    if path:
        try:
            ctx.default_map = read_file(path)
        except SettingsError as error:
            raise click.ClickException(error.message) from error
    return path


def _option(setting: Field[Any]) -> click.Option:
    name = setting.name.replace("_", "-")
    declarations = [f"--{name}", setting.name]
    if setting.metadata["flag"]:
        declarations.insert(0, setting.metadata["flag"])
    kind: dict[str, Any] = {"type": type(setting.default)}
    if isinstance(setting.default, bool):
        kind = {"is_flag": True}
    elif isinstance(setting.default, tuple):
        kind = {"multiple": True, "type": str, "metavar": "NAME"}
    elif setting.name == "verbosity":
        kind = {"type": Verbosity()}
    elif setting.name == "log_format":
        kind = {"type": click.Choice(LOG_FORMATS)}
    return click.Option(
        declarations,
        default=setting.default,
        envvar=setting.metadata["env"] or f"DEVICE_API_{setting.name.upper()}",
        show_envvar=True,
        show_default=setting.default not in ((), ""),
        help=setting.metadata["help"],
        **kind,
    )


_NVML_OPTIONS = (
    click.Option(
        ["--enable-nvml-provider"],
        is_flag=True,
        envvar="DEVICE_API_NVML_ENABLED",
        show_envvar=True,
        help="The same as --provider nvml.",
    ),
    click.Option(
        ["--nvml-driver-root"],
        envvar="DEVICE_API_NVML_DRIVER_ROOT",
        show_envvar=True,
        metavar="DIR",
        help="Where the NVIDIA driver is installed: option driver_root of provider nvml.",
    ),
    click.Option(
        ["--nvml-health-check/--no-nvml-health-check"],
        default=None,
        envvar="DEVICE_API_NVML_HEALTH_CHECK",
        show_envvar=True,
        help="Watch GPU health, not only what is there: option health_check of provider nvml.",
    ),
    click.Option(
        ["--nvml-ignored-xids"],
        type=XidList(),
        envvar="DEVICE_API_NVML_IGNORED_XIDS",
        show_envvar=True,
        help="More XIDs that say nothing about health: option ignored_xids of provider nvml.",
    ),
)

_HELP = """Serve GPU health on this node.

Providers (health monitors) report GPUs and their conditions; consumers (device plugins, DRA
drivers) list and watch them over gRPC and never read a health that is in doubt.

\b
Examples:
  device-api-server --provider nvml
  device-api-server --config /etc/device-api/server.toml
  device-api-server --unix-socket ./d.sock --provider-socket ./p.sock --grpc-address ''

Every option can come from the command line, from its environment variable or from the --config
file (TOML, by option name with underscores; provider options in [providers.NAME]), in this order.
`device-api providers` lists what --provider can name.
"""


def settings_from(values: Mapping[str, Any], file: Mapping[str, Any]) -> Settings:
    """The settings from parsed options. ``values`` are by parameter name; the NVML options of the
    reference become options of the provider called nvml.

    Raises:
        SettingsError: the values contradict one another.
    """
    values = dict(values)
    providers = {name: dict(table) for name, table in file.get("providers", {}).items()}
    if values.pop("enable_nvml_provider") and "nvml" not in values["provider"]:
        values["provider"] = (*values["provider"], "nvml")
    for option in ("driver_root", "health_check", "ignored_xids"):
        if (value := values.pop(f"nvml_{option}")) is not None:
            providers.setdefault("nvml", {})[option] = value
    return Settings(**values, providers=providers)


def _main(config: str | None, **values: Any) -> None:
    # For help and for what is wrong nothing of it is needed.
    from device_api_core.cli.serving import run

    context = click.get_current_context()
    try:
        settings = settings_from(values, context.default_map or {} if config else {})
        code = run(settings)
    except DeviceApiError as error:
        raise click.ClickException(error.message) from error
    context.exit(code)


main = click.Command(
    "device-api-server",
    callback=_main,
    help=_HELP,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    params=[
        click.Option(
            ["--config"],
            is_eager=True,
            callback=_use_file,
            envvar="DEVICE_API_CONFIG",
            show_envvar=True,
            metavar="FILE",
            help="Read settings from this TOML file.",
        ),
        *(_option(f) for f in fields(Settings) if f.default is not MISSING),
        *_NVML_OPTIONS,
    ],
)
click.version_option(__version__, prog_name="device-api-server")(main)
