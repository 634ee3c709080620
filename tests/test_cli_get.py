"""``device-api get gpus``: templates, columns, selections, and what a stream prints."""

import json
import signal
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent / "support"))

import commandline
from commandline import BAD, FALSE, GOOD, TRUE, Lines, cells, health, started

from device_api_core.cli.jsonpath import parse_path
from device_api_core.cli.main import main
from device_api_core.cli.selection import Selection
from device_api_core.cli.tables import one_line
from device_api_core.resources import Condition, Gpu, GpuSpec, ObjectMeta

node, run = commandline.node, commandline.run

READY = '.status.conditions[?(@.type=="Ready")].status'
EACH = '{range .items[*]}{.metadata.name}{"\\t"}{.status.conditions[?(@.type=="Ready")].status}'
EACH += '{"\\n"}{end}'


def test_a_template_gets_the_list_or_the_one_gpu_that_is_named(run):
    assert run("get", "gpus", "-o", f"jsonpath={EACH}").stdout == f"{GOOD}\tTrue\n{BAD}\tFalse\n"
    one = run("get", "gpu", BAD, "-o", "jsonpath={.status.recommendedAction}")
    assert one.stdout == "RESTART_BM"


def test_an_equals_sign_may_follow_the_short_option(run):
    assert run("get", "gpu", BAD, "-o=jsonpath={.metadata.name}").stdout == BAD
    assert run("get", "gpu", BAD, "-oname").stdout == f"gpu/{BAD}\n"
    assert json.loads(run("version", "-o=json").stdout)["server"]["ready"] is True


def test_custom_columns_are_a_table(run):
    columns = f"NAME:.metadata.name,READY:{READY},NONE:.x,BOTH:.spec['uuid','index']"
    heading, good, bad = cells(run("get", "gpus", "-o", f"custom-columns={columns}").stdout)
    assert heading == ["NAME", "READY", "NONE", "BOTH"]
    assert good == [GOOD, "True", "<none>", f"{GOOD.replace('gpu', 'GPU')},0"]
    assert bad[1:3] == ["False", "<none>"]
    bare = run("get", "gpu", BAD, "--no-headers", "-o", "custom-columns=N:metadata.name")
    assert bare.stdout == f"{BAD}\n"


def test_templates_and_columns_come_from_files_too(run, tmp_path):
    (tmp_path / "template").write_text("{.items[1].metadata.name}\n")
    assert run("get", "gpus", "-o", f"jsonpath-file={tmp_path}/template").stdout == f"{BAD}\n"
    (tmp_path / "columns").write_text(f"NAME            READY\n.metadata.name  {READY}\n")
    rows = cells(run("get", "gpus", "-o", f"custom-columns-file={tmp_path}/columns").stdout)
    assert rows == [["NAME", "READY"], [GOOD, "True"], [BAD, "False"]]


@pytest.mark.parametrize(
    ("output", "why"),
    [
        ("xml", "is none of table, wide, json,"),
        ("json=x", "is none of"),
        ("jsonpath", "needs a template"),
        ("jsonpath-file=", "needs a file"),
        ("jsonpath={.a", "\n  {.a\n  ^\n"),
        ("jsonpath-file=/nowhere", "/nowhere cannot be read: No such file"),
        ("custom-columns=NAME", "'NAME' is not HEADING:PATH"),
        ("custom-columns=N:.a[,M:.b", "is not HEADING:PATH"),
        ("custom-columns=N:.a,N:.b", "the same heading"),
        ("custom-columns=N:.a..", "the name of a field is missing"),
        ("custom-columns-file=/dev/null", "two lines"),
    ],
)
def test_a_wrong_format_is_wrong_usage_and_says_what_is_wrong(run, output, why):
    result = run("get", "gpus", "-o", output)
    assert (result.exit_code, result.stdout) == (2, "")
    assert why in result.stderr


def test_a_template_that_does_not_fit_is_an_error(run):
    for output in ("jsonpath={.items[9]}", "custom-columns=N:.metadata.name[0]"):
        result = run("get", "gpus", "-o", output)
        assert (result.exit_code, result.stdout) == (1, "")
        assert "does not fit" in result.stderr


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (("--unhealthy",), [BAD]),
        (("--field-selector", "status.recommendedAction=RESTART_BM"), [BAD]),
        (("--field-selector", "status.recommendedAction!=RESTART_BM"), [GOOD]),
        (("--field-selector", "status.recommendedAction="), [GOOD]),
        (("--field-selector", f"metadata.name=={BAD},{READY}=True"), []),
        (("--field-selector", f"{READY}=False, .spec.index=1"), [BAD]),
        (("--unhealthy", GOOD), []),
        (("--sort-by", ".spec.pciBusId"), [BAD, GOOD]),
        (("--sort-by", "{.status.recommendedAction}"), [GOOD, BAD]),
        (("--sort-by", "metadata.name", BAD, GOOD), [GOOD, BAD]),
    ],
)
def test_gpus_are_selected_and_sorted(run, options, names):
    result = run("get", "gpus", "-o", "name", *options)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [f"gpu/{name}" for name in names]


def test_nothing_selected_is_said(run):
    result = run("get", "gpus", "--field-selector", "spec.index=7")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "none of the 2 GPUs of this node matches\n"


@pytest.mark.parametrize(
    ("options", "code", "why"),
    [
        (("--sort-by", ".nope"), 1, "no GPU has the field"),
        (("--sort-by", ".metadata.name[0]"), 1, "--sort-by does not fit"),
        (("--sort-by", ".a["), 2, "should be an index"),
        (("--field-selector", "spec.index"), 2, "is not FIELD=VALUE"),
        (("--field-selector", "a b=c"), 2, "the path should end here"),
        (("--field-selector", ".metadata.name[0]=x"), 1, "does not fit"),
        (("--output-watch-events",), 2, "goes with --watch"),
        (("-w", "-o", "name", "--output-watch-events"), 2, "no place"),
    ],
)
def test_what_cannot_be_selected_is_an_error(run, options, code, why):
    result = run("get", "gpus", *options)
    assert (result.exit_code, result.stdout) == (code, "")
    assert why in result.stderr


@given(st.lists(st.integers(0, 2**64 - 1), max_size=6))
def test_numbers_sort_as_numbers_though_they_are_texts_in_json(sizes):
    gpus = [Gpu(ObjectMeta(f"gpu-{n}"), GpuSpec(memory_bytes=size)) for n, size in enumerate(sizes)]
    chosen = Selection(sort_by=parse_path(".spec.memoryBytes")).of(gpus)
    assert [gpu.spec.memory_bytes for gpu in chosen] == sorted(sizes)
    by_name = Selection(sort_by=parse_path(".metadata.name")).of(gpus[::-1])
    assert by_name == tuple(gpus)


def test_a_number_may_have_thousands_of_digits():
    serials = ["7", "1" + "0" * 5_000, "0008", "2" + "0" * 5_000]
    gpus = [Gpu(ObjectMeta(f"gpu-{n}"), GpuSpec(serial=s)) for n, s in enumerate(serials)]
    chosen = Selection(sort_by=parse_path(".spec.serial")).of(gpus)
    assert [gpu.spec.serial for gpu in chosen] == [serials[n] for n in (0, 2, 1, 3)]


def test_what_a_provider_wrote_cannot_move_the_cursor():
    assert one_line("a\x1b[2Jb\n c\x9b") == "a\ufffd[2Jb c\ufffd"


def fault(reason):
    return Condition("XidHealthy", FALSE, reason)


def stop(process):
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 0
    assert process.stderr.read() == ""


def test_a_stream_has_one_object_for_each_gpu_and_each_change(node):
    providers = node.clients.v1alpha1.providers
    args = (*node.options, "get", "gpus", "-w", "-o", "json", "--output-watch-events")
    with started(*args) as process:
        lines = Lines(process.stdout)
        first = [json.loads(lines.next()) for _ in range(2)]
        assert [e["object"]["metadata"]["name"] for e in first] == [GOOD, BAD]
        assert {e["type"] for e in first} == {"ADDED"}
        # Between the list and the watch, or after both: nothing is missed and nothing comes twice.
        versions = [
            providers.update_condition(GOOD, fault(f"Xid{n}"), provider_id="fan") for n in range(9)
        ]
        seen = [json.loads(lines.next()) for _ in versions]
        assert [int(e["object"]["resourceVersion"]) for e in seen] == versions
        providers.register("gpu-new", provider_id="fan")
        providers.unregister("gpu-new", provider_id="fan")
        assert [json.loads(lines.next())["type"] for _ in range(2)] == ["ADDED", "DELETED"]
        stop(process)
    providers.update_status(GOOD, health(GOOD), provider_id="fan")


def test_watching_only_prints_no_list_and_what_leaves_a_selection_once_more(node):
    providers = node.clients.v1alpha1.providers
    what = f"jsonpath={{.metadata.name}} {{{READY}}} {{.status.conditions[0].reason}}"
    with started(
        *node.options, "get", "gpus", "--watch-only", "--unhealthy", "-o", what
    ) as process:
        lines = Lines(process.stdout)
        line, sent = None, 0
        while line is None:
            # It does not say when it has begun to watch.
            sent += 1
            providers.update_condition(GOOD, fault(f"Xid{sent}"), provider_id="fan")
            line = lines.within(0.5)
        while line != f"{GOOD} False Xid{sent}\n":
            assert line.startswith(f"{GOOD} False Xid")
            line = lines.next()
        providers.update_status(GOOD, health(GOOD), provider_id="fan")
        assert lines.next() == f"{GOOD} True AllConditionsTrue\n"
        well = Condition("XidHealthy", TRUE, "Well")
        providers.update_condition(GOOD, well, provider_id="fan")
        providers.update_condition(BAD, fault("Xid48"), provider_id="fan")
        assert lines.next() == f"{BAD} False Xid48\n"
        stop(process)
    providers.update_status(BAD, health(BAD), provider_id="fan")


def test_a_yaml_stream_has_a_document_for_each_change(node):
    with started(*node.options, "get", "gpu", BAD, "-w", "-o", "yaml") as process:
        lines = Lines(process.stdout)
        assert lines.next() == "---\n"
        document = [lines.next() for _ in range(5)]
        version = node.clients.v1alpha1.providers.update_condition(
            BAD, fault("Xid48"), provider_id="fan"
        )
        while (line := lines.next()) != "---\n":
            document.append(line)
        while not (line := lines.next()).startswith("resourceVersion"):
            pass
        assert yaml.safe_load(line) == {"resourceVersion": str(version)}
        stop(process)
    assert yaml.safe_load("".join(document))["metadata"]["name"] == BAD
    node.clients.v1alpha1.providers.update_status(BAD, health(BAD), provider_id="fan")


def test_a_table_can_say_what_happened_to_each_gpu(node):
    with started(*node.options, "get", "gpus", "-w", "--output-watch-events", GOOD) as process:
        lines = Lines(process.stdout)
        assert lines.next().split()[:3] == ["EVENT", "NAME", "READY"]
        assert lines.next().split()[:3] == ["ADDED", GOOD, "True"]
        node.clients.v1alpha1.providers.update_condition(GOOD, fault("Xid48"), provider_id="fan")
        assert lines.next().split()[:4] == ["MODIFIED", GOOD, "False", "Xid48"]
        stop(process)
    node.clients.v1alpha1.providers.update_status(GOOD, health(GOOD), provider_id="fan")


def test_shells_complete_the_names_of_gpus_and_the_formats(node):
    environment = {"_DEVICE_API_COMPLETE": "bash_complete"}

    def complete(words):
        line = " ".join(("device-api", *node.options, *words))
        env = environment | {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
        result = CliRunner().invoke(main, prog_name="device-api", env=env)
        return [line.partition(",")[2] for line in result.stdout.splitlines()]

    assert complete(["describe", "gpu", "gpu-0"]) == [GOOD, BAD]
    assert complete(["get", "gpus", GOOD, "gpu-0"]) == [BAD]
    assert complete(["get", "gpus", "-o", "custom"]) == ["custom-columns=", "custom-columns-file="]
    assert "condition=Ready=False" in complete(["wait", "gpu", "--for", "cond"])


def test_names_are_not_completed_without_a_server(tmp_path):
    env = {
        "_DEVICE_API_COMPLETE": "bash_complete",
        "COMP_WORDS": f"device-api --server {tmp_path}/no.sock describe gpu g",
        "COMP_CWORD": "5",
    }
    result = CliRunner().invoke(main, prog_name="device-api", env=env)
    assert (result.exit_code, result.output.strip()) == (0, "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_asks_this_program(run, shell):
    script = run("completion", shell).stdout
    assert f"_DEVICE_API_COMPLETE={shell}_complete" in script
    assert "device-api" in script
