"""The command line against a running server."""

import json
import re
import signal
import sys
from pathlib import Path

import yaml
from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent / "support"))

# The fixtures are used by their names.
import commandline
from commandline import BAD, FALSE, GOOD, TRUE, Lines, cells, health, running_server, started

from device_api_core.cli.main import main
from device_api_core.client import Clientset
from device_api_core.resources import Condition, GpuSpec

node, run = commandline.node, commandline.run


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
