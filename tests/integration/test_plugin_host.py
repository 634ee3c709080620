"""Installed plugins of every kind, good and bad, in a real server."""

import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from installed import Installed, good
from process import Server
from wire import condition, status_of

from device_api_core._proto import admin_pb2

pytestmark = pytest.mark.once("it is about plugins; test_sink_conformance.py has their calls")

Start = Callable[..., Server]

HOOK = """
@hookimpl
def device_api_provider(options):
    return {value}
"""

BAD = {
    "import-error": ("import missing_module", "ModuleNotFoundError", "missing_module"),
    "syntax-error": ("def broken(:\n    pass", "SyntaxError", ""),
    "exits": ("sys.exit(3)", "SystemExit", "3"),
    "raises": (
        "@hookimpl\ndef device_api_provider(options):\n    raise RuntimeError('no luck')",
        "RuntimeError",
        "no luck",
    ),
    "hook-exits": (
        "@hookimpl\ndef device_api_provider(options):\n    sys.exit('enough')",
        "SystemExit",
        "enough",
    ),
    "no-hook": ("", "no hook device_api_provider", "hookimpl"),
    "undecorated": ("def device_api_provider(options):\n    return None", "hookimpl", ""),
    "typo": (
        "@hookimpl\ndef device_api_providre(options):\n    return None",
        "device_api_providre",
        "",
    ),
    "wrong-argument": (
        "@hookimpl\ndef device_api_provider(option):\n    return None",
        "option",
        "",
    ),
    "wrong-type": (HOOK.format(value="'me'"), "has no contract_version", "str"),
    "old-contract": (
        "class P(Base):\n    name='old-contract'; types=(); contract_version=0\n"
        "    def run(self, sink, stop): pass\n" + HOOK.format(value="P(options)"),
        "contract 0",
        "speaks 1",
    ),
    "misnamed": (
        "class P(Base):\n    name='other'; types=()\n    def run(self, sink, stop): pass\n"
        + HOOK.format(value="P(options)"),
        "'other'",
        "'misnamed'",
    ),
    "no-types": (
        "class P(Base):\n    name='no-types'; types=['A']\n    def run(self, sink, stop): pass\n"
        + HOOK.format(value="P(options)"),
        "types must be a tuple",
        "",
    ),
    "ready-type": (
        "class P(Base):\n    name='ready-type'; types=('Ready',)\n"
        "    def run(self, sink, stop): pass\n" + HOOK.format(value="P(options)"),
        "Ready is computed",
        "",
    ),
    "no-interval": (
        "class P(Base):\n    name='no-interval'; types=(); interval_seconds=0\n"
        "    def run(self, sink, stop): pass\n" + HOOK.format(value="P(options)"),
        "interval_seconds must be a positive number",
        "",
    ),
}


@pytest.fixture
def installed(directory: Path) -> Installed:
    return Installed(directory / "plugins")


def test_bad_plugins_are_listed_with_their_error_and_others_run(
    start: Start, installed: Installed
) -> None:
    for name, (source, _, _) in BAD.items():
        installed.add(name, source)
    installed.add("twice", good("twice"), distribution="demo_first")
    installed.add("twice", good("twice"), distribution="demo_second")
    installed.add("fine", good("fine"))
    server = start("--provider=fine", plugins=installed.directory).wait_serving()
    rows = {p.name: p for p in server.api().list_providers().providers}
    for name, (_, *words) in BAD.items():
        assert rows[name].state == "error"
        for word in words:
            assert word in rows[name].state_reason, name
        assert rows[name].distribution == f"demo_{name.replace('-', '_')}"
        assert rows[name].version == "1.2"
    assert rows["twice"].state == "error"
    assert "2 installed plugins are called twice" in rows["twice"].state_reason
    fine = rows["fine"]
    assert (fine.state, fine.home, fine.contract_version, fine.gpus) == ("running", "thread", 1, 1)
    assert list(fine.condition_types) == ["FineHealthy"]
    assert fine.lease.seconds == 30
    assert server.stop() == 0


@pytest.mark.parametrize("name", sorted(BAD))
def test_a_named_plugin_that_cannot_load_stops_the_start(
    start: Start, installed: Installed, name: str
) -> None:
    source, *words = BAD[name]
    installed.add(name, source)
    server = start(f"--provider={name}", plugins=installed.directory)
    assert server.exit_code() == 1
    last = server.text.strip().splitlines()[-1]
    assert last.startswith(f"Error: provider {name} (demo_{name.replace('-', '_')}): ")
    for word in words:
        assert word in server.text
    assert not server.socket.exists()


def test_a_name_that_is_not_installed_stops_the_start(start: Start, installed: Installed) -> None:
    installed.add("fine", good("fine"))
    server = start("--provider=fina", plugins=installed.directory)
    assert server.exit_code() == 1
    last = server.text.strip().splitlines()[-1]
    assert "no provider 'fina' is installed" in last
    assert "fine" in last
    assert "pip install device-api-fina" in last


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("SameHealthy", "SameHealthy"),
        ("example.com/Same", "example.com/*"),
        ("example.com/*", "example.com/Same"),
        ("example.com/*", "example.com/*"),
    ],
)
def test_two_plugins_that_declare_one_type_stop_the_start(
    start: Start, installed: Installed, one: str, other: str
) -> None:
    installed.add("left", good("left", one)).add("right", good("right", other))
    server = start("--provider=left", "--provider=right", plugins=installed.directory)
    assert server.exit_code() == 1
    last = server.text.strip().splitlines()[-1]
    for word in ("left", "right", "both declare condition type", "run only one of them"):
        assert word in last


def test_with_none_named_none_runs_and_none_is_imported(start: Start, installed: Installed) -> None:
    imported = installed.directory / "imported"
    touch = f"import pathlib\npathlib.Path({str(imported)!r}).touch()\n"
    installed.add("left", touch + good("left")).add("right", good("right"))
    installed.add("bad", "import nothing_")
    server = start(plugins=installed.directory).wait_serving()
    entry = server.said(
        "no provider was named, so none runs: name one of those installed with --provider"
    )
    assert {"bad", "left", "right"} <= set(entry["installed"].split(", "))
    api = server.api()
    assert not imported.exists()
    assert "nothing_" in api.provider("bad").state_reason
    assert imported.exists()
    row = api.provider("left")
    assert (row.state, row.home, row.gpus) == ("available", "", 0)
    # What merely is installed reserves nothing.
    api.register("gpu-0", "left")
    api.set("gpu-0", "LeftHealthy", "False", "left")
    assert server.stop() == 0


def test_ids_and_types_of_running_plugins_are_reserved(start: Start, installed: Installed) -> None:
    domain = good("domain", "example.com/*").replace("example.com/*", "example.com/Fan")
    installed.add("fine", good("fine"))
    installed.add("domain", domain.replace('("example.com/Fan",)', '("example.com/*",)'))
    server = start("--provider=fine", "--provider=domain", plugins=installed.directory)
    # Not even before the plugin has said a word.
    server.wait_serving()
    api = server.api()
    api.register("gpu-0", "remote")
    before = api.list()
    attempts: list[Callable[[], object]] = [
        lambda: api.register("gpu-0", "fine"),
        lambda: api.unregister("gpu-fine", "fine"),
        lambda: api.set("gpu-0", "Other", "True", "fine"),
        lambda: api.set_status("gpu-0", condition("Other"), provider_id="fine"),
        lambda: api.heartbeat("fine"),
        lambda: api.hold("fine", "gpu-0"),
        lambda: api.set("gpu-0", "FineHealthy", "True", "remote"),
        lambda: api.set("gpu-0", "FineHealthy", "False", ""),
        lambda: api.set("gpu-0", "example.com/Whatever", "True", "remote"),
        lambda: api.set_status(
            "gpu-0", condition("Other"), condition("FineHealthy"), provider_id="remote"
        ),
        lambda: api.register(
            "gpu-1", "remote", initial_status={"conditions": [condition("FineHealthy")]}
        ),
    ]
    for attempt in attempts:
        with pytest.raises(grpc.RpcError) as caught:
            attempt()
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert "reserved" in caught.value.details()
    assert api.list() == before
    request = admin_pb2.ForgetProviderRequest(provider_id="fine")
    with pytest.raises(grpc.RpcError) as caught:
        api.admin.ForgetProvider(request, timeout=10)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    api.set("gpu-0", "example.org/Whatever", "True", "remote")
    assert server.stop() == 0


def test_options_come_from_the_file_and_a_summary_goes_to_the_list(
    start: Start, installed: Installed, directory: Path
) -> None:
    installed.add("fine", good("fine"))
    (directory / "server.toml").write_text(
        'provider = ["fine"]\n[providers.fine]\nspeed = 3\nnames = ["a"]\n'
    )
    server = start(f"--config={directory / 'server.toml'}", plugins=installed.directory)
    server.wait_serving()
    wait_for(
        lambda: server.api().provider("fine").summary == "works with {'speed': 3, 'names': ['a']}"
    )
    assert server.stop() == 0


def wait_for(condition: Callable[[], bool], timeout: float = 10.0) -> None:
    ends = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < ends, "it never happened"
        time.sleep(0.01)


def test_clearing_reaches_the_plugin(start: Start, installed: Installed) -> None:
    source = good("fine").replace(
        'Condition("FineHealthy", TRUE)', 'Condition("FineHealthy", FALSE)'
    )
    installed.add("fine", source)
    server = start("--provider=fine", plugins=installed.directory).wait_serving()
    server.api().clear("gpu-fine", "FineHealthy")
    wait_for(lambda: "cleared gpu-fine FineHealthy\n" in server.output)
    assert status_of(server.api().get("gpu-fine")).reason == "ClearedByOperator"
    assert server.stop() == 0


WEDGED = """
class Wedged(Base):
    name = "wedged"
    types = ("WedgedHealthy",)
    interval_seconds = 0.2
    def run(self, sink, stop):
        sink.register("gpu-0", GpuSpec())
        sink.set_condition("gpu-0", Condition("WedgedHealthy", TRUE))
        sink.synced()
        threading.Event().wait()

@hookimpl
def device_api_provider(options):
    return Wedged(options)
"""


def test_a_wedged_provider_is_lost_but_the_server_lives_and_ends_in_time(
    start: Start, installed: Installed
) -> None:
    installed.add("wedged", WEDGED)
    server = start("--provider=wedged", "--shutdown-timeout=2", plugins=installed.directory)
    server.wait_serving()
    server.wait_log(lambda e: e.get("reason") == "ProviderLost")
    assert server.http("/livez") == (200, "ok\n")
    wait_for(lambda: server.api().provider("wedged").restarts >= 1)
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < 3


CRASHING = """
class Crashing(Base):
    name = "crashing"
    types = ("Crashed",)
    def run(self, sink, stop):
        sink.register("gpu-0", GpuSpec())
        sink.set_condition("gpu-0", Condition("Crashed", TRUE))
        sink.synced()
        {how}

@hookimpl
def device_api_provider(options):
    return Crashing(options)
"""


@pytest.mark.parametrize(
    ("how", "outcome"),
    [
        ("sys.exit(7)", "raised SystemExit: 7"),
        ("raise KeyboardInterrupt", "raised KeyboardInterrupt"),
        ("return", "returned although nothing stopped it"),
    ],
)
def test_the_server_outlives_a_provider_that_ends(
    start: Start, installed: Installed, how: str, outcome: str
) -> None:
    installed.add("crashing", CRASHING.replace("{how}", how))
    server = start("--provider=crashing", plugins=installed.directory).wait_serving()
    entry = server.wait_log(lambda e: e.get("reason") == "ProviderFailed" and "msg" in e)
    assert outcome in server.text
    assert entry["provider"] == "crashing"
    wait_for(lambda: server.metric("provider_restarts_total", provider_id="crashing") >= 1)
    assert server.stop() == 0
    server.output[:] = [o for o in server.output if "provider crashed" not in o]


NOISY = """
class Noisy(Base):
    name = "noisy"
    types = ("NoisyHealthy",)
    def run(self, sink, stop):
        sink.synced()
        def shout():
            while True:
                try:
                    sink.register("gpu-0", GpuSpec())
                except Exception:
                    return
        threads = [threading.Thread(target=shout, daemon=True) for _ in range(8)]
        for thread in threads: thread.start()
        stop.wait()

@hookimpl
def device_api_provider(options):
    return Noisy(options)
"""


def test_threads_in_the_sink_do_not_hold_the_exit_up(start: Start, installed: Installed) -> None:
    installed.add("noisy", NOISY)
    server = start("--provider=noisy", "--shutdown-timeout=2", plugins=installed.directory)
    server.wait_serving()
    server.api().register("other", "remote")
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < 3
