"""The first steps of device-api-server: its libraries, without what they import for others."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from device_api_core.errors import DeviceApiError

if TYPE_CHECKING:
    from device_api_core.settings import Settings

_UNUSED = {
    # OpenSSL, which asyncio needs once somebody gives it a certificate: 6 MiB.
    "asyncio": ("ssl", "asyncio.sslproto", "inspect"),
    "pathlib": ("fnmatch", "ipaddress", "ntpath"),
    "pluggy": ("inspect",),
    # For the signature in the docstring of a class that has none.
    "dataclasses": ("inspect",),
    # Messages in pure Python, and as text; the ones in C are used.
    "google.protobuf.internal.builder": ("google.protobuf.internal.python_message",),
}
"""By library, the modules that it imports and a server without TLS does not use. None of them has
submodules, which would need the module itself."""


class _Nothing:
    """Stands for a class of a module that nobody has imported: nothing is an instance of it."""


_ONLY_COMPARED = {("ssl", "SSLSocket"): _Nothing}
"""asyncio looks at every socket that it is given, whether it is one of these."""


class _Deferred(ModuleType):
    """A module that is imported when somebody first wants something of it."""

    def __getattr__(self, name: str) -> Any:
        module = self.__name__
        if sys.modules.get(module) is self:
            del sys.modules[module]
        if module not in sys.modules and (module, name) in _ONLY_COMPARED:
            return _ONLY_COMPARED[module, name]
        # import_module takes the lock of that module: threads may come at the same time.
        return getattr(import_module(module), name)


@contextmanager
def deferred(*names: str) -> Iterator[None]:
    """What is imported in this context gets these modules by name, and each of them is imported
    when one of its attributes is read. Imports that come later are as ever.

    Python 3.15 has a statement for it (PEP 810); a library's own imports can be had lazily only
    from outside.
    """
    stand_ins = {name: _Deferred(name) for name in names if name not in sys.modules}
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name, stand_in in stand_ins.items():
            if sys.modules.get(name) is stand_in:
                del sys.modules[name]


def import_libraries() -> None:
    """Import what is large, each without what it does not need here."""
    for library, unused in _UNUSED.items():
        with deferred(*unused):
            import_module(library)


def main() -> None:
    """What the command ``device-api-server`` runs."""
    # Next to nothing that an import makes is garbage.
    gc.disable()
    import_libraries()
    from device_api_core.cli.arguments import plain_settings

    settings = plain_settings(sys.argv[1:], os.environ)
    if settings is None:
        gc.enable()
        from device_api_core.cli.server import main as read_and_run

        read_and_run()
    else:
        sys.exit(_run(settings))


def _run(settings: Settings) -> int:
    """The same as click does with what goes wrong."""
    from device_api_core.cli.serving import run

    gc.enable()
    try:
        return run(settings)
    except DeviceApiError as error:
        sys.stderr.write(f"Error: {error.message}\n")
    except KeyboardInterrupt:
        sys.stderr.write("\nAborted!\n")
    return 1
