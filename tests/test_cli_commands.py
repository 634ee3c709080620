"""The command line against a running server."""

import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from types import SimpleNamespace

import grpc
import pytest
import yaml
from click.testing import CliRunner

from device_api_core.cli.main import main
from device_api_core.client import Clientset
from device_api_core.resources import Condition, ConditionStatus, GpuSpec, GpuStatus

TRUE, FALSE = ConditionStatus.TRUE, ConditionStatus.FALSE
GOOD, BAD = "gpu-00000000-0000-4000-8000-00000000000a", "gpu-00000000-0000-4000-8000-00000000000b"
START = "from device_api_core.cli.server import main; main()"


@contextmanager
def running_server(directory):
    """A server process with its sockets in a directory."""
    consumers, providers = f"{directory}/device.sock", f"{directory}/provider.sock"
    args = ["--grpc-address", "", "--unix-socket", consumers, "--provider-socket", providers]
    args += ["--health-port", "0", "--metrics-port", "0", "--node-name", "node-a"]
    args += ["--shutdown-delay", "0", "--shutdown-timeout", "1"]
    with (
        (directory / "log").open("ab") as log,
        subprocess.Popen([sys.executable, "-c", START, *args], stdout=log, stderr=log) as process,
    ):
        try:
            wait_until_it_listens(f"unix://{providers}", process, directory / "log")
            yield process
        finally:
            process.terminate()


def wait_until_it_listens(target, process, log):
    options = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 50)]
    with grpc.insecure_channel(target, options) as channel:
        while process.poll() is None:
            with suppress(grpc.FutureTimeoutError):
                return grpc.channel_ready_future(channel).result(timeout=0.5)
    pytest.fail(f"the server ended with {process.returncode}: {log.read_text()}")


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """A server with one good and one bad GPU, reported by the provider ``fan``."""
    directory = tmp_path_factory.mktemp("node")
    options = ("--server", f"{directory}/device.sock")
    options += ("--provider-server", f"{directory}/provider.sock")
    with running_server(directory), Clientset.connect(f"{directory}/provider.sock") as clients:
        providers = clients.v1alpha1.providers
        for index, name in enumerate((BAD, GOOD)):
            spec = GpuSpec(
                uuid=name.replace("gpu", "GPU"),
                index=1 - index,
                minor=index,
                pci_bus_id=f"0000:1{index}:00.0",
                product_name="NVIDIA H100 80GB HBM3 (SIMULATED)",
                memory_bytes=80 * 2**30,
            )
            providers.register(name, spec, provider_id="fan")
            providers.update_status(name, health(name), provider_id="fan")
        yield SimpleNamespace(clients=clients, options=options)


def health(name):
    fan = Condition("example.com/FanHealthy", TRUE, "Turning")
    if name == GOOD:
        return GpuStatus((fan, Condition("XidHealthy", TRUE)))
    fault = Condition("XidHealthy", FALSE, "Xid79", "the GPU fell off the bus")
    return GpuStatus((fan, fault), "RESTART_BM")


@pytest.fixture
def run(node):
    def invoke(*args, **kwargs):
        return CliRunner().invoke(main, [*node.options, *args], prog_name="device-api", **kwargs)

    return invoke


def cells(output):
    return [re.split(r" {3,}", line) for line in output.splitlines()]


def test_get_gpus_is_a_table_in_the_order_of_the_driver(run):
    result = run("get", "gpus")
    assert result.exit_code == 0
    heading, good, bad = cells(result.stdout)
    assert heading == ["NAME", "READY", "REASON", "ACTION", "AGE"]
    assert good[:2] == [GOOD, "True"]
    assert bad[:4] == [BAD, "False", "Xid79", "RESTART_BM"]
    assert all(re.fullmatch(r"\d+s", row[4]) for row in (good, bad))
    assert {line.find("True") for line in result.stdout.splitlines()[1:2]} == {
        result.stdout.splitlines()[0].find("READY")
    }


def test_wide_tells_what_a_gpu_is_and_that_it_is_simulated(run):
    heading, good, bad = cells(run("get", "gpus", "-o", "wide").stdout)
    assert heading[5:] == ["UUID", "INDEX", "PCI", "PRODUCT", "CONDITIONS", "VERSION"]
    assert good[6:10] == ["0", "0000:11:00.0", "NVIDIA H100 80GB HBM3 (SIMULATED)", "-"]
    assert bad[9] == "XidHealthy=False(Xid79)"


def test_one_gpu_as_json_is_an_object_and_several_are_a_list(run):
    one = json.loads(run("get", "gpu", BAD, "-o", "json").stdout)
    assert one["metadata"]["name"] == BAD
    assert one["status"]["recommendedAction"] == "RESTART_BM"
    assert one["spec"]["memoryBytes"] == str(80 * 2**30)
    several = yaml.safe_load(run("get", "gpus", "-o", "yaml").stdout)
    assert [item["metadata"]["name"] for item in several["items"]] == [GOOD, BAD]
    assert int(several["metadata"]["resourceVersion"]) > 0


def test_names_select_in_the_order_given(run):
    assert run("get", "gpus", BAD, GOOD, "-o", "name").stdout == f"gpu/{BAD}\ngpu/{GOOD}\n"


def test_a_gpu_that_does_not_exist_is_an_error_after_the_others(run):
    result = run("get", "gpus", "nope", GOOD, "-o", "name")
    assert (result.exit_code, result.stdout) == (1, f"gpu/{GOOD}\n")
    assert result.stderr.startswith("error: no GPU is named nope\nhint: ")


def test_describe_explains_everything(run):
    result = run("describe", "gpu", BAD)
    assert result.exit_code == 0
    text = result.stdout
    assert re.search(r"^Ready: +False \(Xid79\), for \d+s$", text, re.MULTILINE)
    assert re.search(r"^What to do: +RESTART_BM: restart the machine$", text, re.MULTILINE)
    assert re.search(r"^  Memory: +80\.0 GiB \(85899345920 bytes\)$", text, re.MULTILINE)
    assert re.search(r"^  XidHealthy +False +Xid79 +fan +\d+s +the GPU fell", text, re.MULTILINE)
    assert re.search(r"^  Ready +False +Xid79 +computed ", text, re.MULTILINE)
    assert "Xid79" in text.partition("Events:")[2]


def test_describe_says_how_to_see_events_that_it_cannot_read(node, tmp_path):
    options = [*node.options[:2], "--provider-server", f"{tmp_path}/none.sock"]
    result = CliRunner().invoke(main, [*options, "describe", "gpu", GOOD])
    assert result.exit_code == 0
    events = result.stdout.partition("Events:")[2]
    assert "not available: no server answers" in events
    assert "--provider-server" in events


def test_describe_of_an_unknown_gpu_is_refused(run):
    result = run("describe", "gpu", "nope")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: ")


def test_providers_shows_the_live_columns(run):
    heading, *rows = cells(run("providers").stdout)
    assert heading[4:] == ["GPUS", "RESTARTS", "LAST SEEN", "SUMMARY"]
    [fan] = [row for row in rows if row[0] == "fan"]
    assert fan[4:6] == ["2", "0"]
    listed = json.loads(run("providers", "-o", "json").stdout)
    assert listed["server"]["nodeName"] == "node-a"
    assert "fan" in [provider["name"] for provider in listed["providers"]]


def test_events_can_be_narrowed_to_a_gpu(run):
    heading, *rows = cells(run("events", "--gpu", BAD).stdout)
    assert heading == ["AGE", "SEVERITY", "REASON", "GPU", "PROVIDER", "MESSAGE"]
    assert {row[3] for row in rows} == {BAD}
    assert "Xid79" in [row[2] for row in rows]
    listed = json.loads(run("events", "--gpu", BAD, "--limit", "1", "-o", "json").stdout)
    assert [event["gpuName"] for event in listed["events"]] == [BAD]


def test_version_shows_the_server_and_its_providers(run):
    text = run("version").stdout
    assert re.search(r"^Server: +\S+ at unix:///", text, re.MULTILINE)
    assert re.search(r"^Node: +node-a$", text, re.MULTILINE)
    assert re.search(r"^  fan ", text, re.MULTILINE)
    assert yaml.safe_load(run("version", "-o", "yaml").stdout)["server"]["ready"] is True


def test_an_operators_command_on_the_consumers_socket_names_the_other_one(node):
    options = ["--provider-server", node.options[1]]
    result = CliRunner().invoke(main, [*options, "events"])
    assert result.exit_code == 1
    assert "hint: this command needs the providers' socket" in result.stderr


def test_version_without_the_providers_socket_still_finds_the_server(node, tmp_path):
    options = [*node.options[:2], "--provider-server", f"{tmp_path}/none.sock"]
    assert "answers with 2 GPUs" in CliRunner().invoke(main, [*options, "version"]).stdout


def test_clear_makes_a_fault_unknown_once(node, run):
    result = run("clear", BAD, "XidHealthy")
    assert result.exit_code == 0
    assert node.clients.v1alpha1.gpus.get(BAD).condition("XidHealthy").reason == "ClearedByOperator"
    refused = run("clear", GOOD, "XidHealthy")
    assert refused.exit_code == 1
    node.clients.v1alpha1.providers.update_status(BAD, health(BAD), provider_id="fan")


def test_forgetting_asks_and_says_what_is_lost(node, run):
    providers = node.clients.v1alpha1.providers
    providers.register("old", GpuSpec(product_name="Old"), provider_id="gone")
    fault = Condition("OldHealthy", FALSE, "Burnt")
    providers.update_condition("old", fault, provider_id="gone")

    declined = run("forget", "gpu", "old", input="n\n")
    assert declined.exit_code == 1
    assert "This removes old (Old) with 1 condition." in declined.stderr
    assert "a fault is lost: old OldHealthy (Burnt)" in declined.stderr
    assert (
        "removes all that gone said: 1 condition on 1 GPU,"
        in run("forget", "provider", "gone", input="n\n").stderr
    )

    assert run("forget", "provider", "gone", "--yes").stdout == (
        "gone is forgotten: 1 condition removed, 1 GPU changed\n"
    )
    gone = run("forget", "gpu", "old", "--yes")
    assert (gone.exit_code, gone.stdout) == (1, "")
    assert gone.stderr.startswith("error: no GPU is named old\n")


@contextmanager
def started(*args):
    """The command line as a process of its own, its standard output a pipe."""
    code = "from device_api_core.cli.main import main; main(prog_name='device-api')"
    with subprocess.Popen(
        [sys.executable, "-c", code, *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


class Lines:
    """The lines of a pipe as they come."""

    def __init__(self, stream):
        self._read = queue.SimpleQueue()
        threading.Thread(target=self._pump, args=(stream,), daemon=True).start()

    def _pump(self, stream):
        for line in stream:
            self._read.put(line)

    def next(self):
        return self._read.get(timeout=10)


def test_watch_prints_a_change_as_a_line_and_ends_well_at_ctrl_c(node):
    providers = node.clients.v1alpha1.providers
    with started(*node.options, "watch", "gpus", GOOD, "-o", "json") as process:
        lines = Lines(process.stdout)
        assert json.loads(lines.next())["type"] == "ADDED"
        fault = Condition("XidHealthy", FALSE, "Xid48")
        version = providers.update_condition(GOOD, fault, provider_id="fan")
        event = json.loads(lines.next())
        assert event["type"] == "MODIFIED"
        assert event["object"]["resourceVersion"] == str(version)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        assert process.stderr.read() == ""
    providers.update_status(GOOD, health(GOOD), provider_id="fan")


def test_get_with_watch_goes_on_under_the_same_headings(node):
    with started(*node.options, "get", "gpus", "-w") as process:
        lines = Lines(process.stdout)
        head, _, _ = (lines.next() for _ in range(3))
        node.clients.v1alpha1.providers.update_condition(
            GOOD, Condition("XidHealthy", FALSE, "Xid48"), provider_id="fan"
        )
        line = lines.next()
        assert line.split()[:3] == [GOOD, "False", "Xid48"]
        assert line.index("Xid48") == head.index("REASON")
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    node.clients.v1alpha1.providers.update_status(GOOD, health(GOOD), provider_id="fan")


def test_a_reader_that_goes_away_ends_the_watch_quietly(node):
    with started(*node.options, "watch", "gpus") as process:
        process.stdout.readline()
        process.stdout.close()
        node.clients.v1alpha1.providers.update_condition(
            GOOD, Condition("XidHealthy", TRUE, "AllGood"), provider_id="fan"
        )
        assert process.wait(10) in (0, 1)
        assert process.stderr.read() == ""


def test_a_lost_stream_is_an_error_or_is_taken_up_again(tmp_path):
    options = ("--server", f"{tmp_path}/device.sock")
    with (
        running_server(tmp_path) as server,
        Clientset.connect(f"{tmp_path}/provider.sock") as clients,
    ):
        clients.v1alpha1.providers.register("gpu-a", provider_id="fan")
        with (
            started(*options, "watch", "gpus") as once,
            started(*options, "watch", "gpus", "--reconnect") as lasting,
        ):
            assert "ADDED" in once.stdout.readline()
            events = Lines(lasting.stdout)
            assert "ADDED" in events.next()
            server.kill()
            assert once.wait(10) == 1
            assert once.stderr.read().startswith("error: the watch ended: no server answers at ")
            assert lasting.stderr.readline().startswith("reconnecting: ")
            with running_server(tmp_path):
                clients.v1alpha1.providers.register("gpu-b", provider_id="fan")
                seen = {tuple(events.next().split()[1:3]) for _ in range(2)}
                assert seen == {("DELETED", "gpu-a"), ("ADDED", "gpu-b")}


def test_a_watch_that_the_server_ends_says_why(tmp_path):
    options = ("--server", f"{tmp_path}/device.sock")
    with (
        running_server(tmp_path) as server,
        Clientset.connect(f"{tmp_path}/provider.sock") as clients,
    ):
        clients.v1alpha1.providers.register("gpu-a", provider_id="fan")
        with started(*options, "watch", "gpus") as process:
            process.stdout.readline()
            server.terminate()
            assert process.wait(10) == 1
            assert process.stderr.read().startswith("error: the watch ended: ")
