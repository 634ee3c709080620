"""``device-api wait gpu``: goals, deadlines, exit codes, and a server that restarts meanwhile."""

import signal
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent / "support"))

import commandline
from commandline import BAD, FALSE, GOOD, TRUE, Terminal, health, running_server

from device_api_core.cli.durations import parse_duration
from device_api_core.client import Clientset
from device_api_core.resources import Condition, GpuStatus

node, run = commandline.node, commandline.run


@pytest.mark.parametrize(
    ("name", "goal"),
    [
        (GOOD, "condition=Ready"),
        (GOOD, "condition=Ready=true"),
        (GOOD, "condition=ready=True"),
        (GOOD, "condition=example.com/FanHealthy"),
        (BAD, "condition=Ready=false"),
        (BAD, "create"),
        ("gpu-none", "delete"),
        (BAD, "jsonpath={.status.recommendedAction}=RESTART_BM"),
        (BAD, 'jsonpath={.status.conditions[?(@.type=="Ready")].status}=False'),
        (BAD, "jsonpath={.status.recommendedAction}"),
    ],
)
def test_what_is_so_already_needs_no_wait(run, name, goal):
    result = run("wait", "gpu", name, f"--for={goal}", "--timeout=0")
    assert (result.stdout, result.exit_code) == (f"gpu/{name} condition met\n", 0)
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("name", "goal", "state"),
    [
        (BAD, "condition=Ready", f"condition Ready=True: {BAD} is False (Xid79)"),
        (GOOD, "condition=Ready=unknown", "is True (AllConditionsTrue)"),
        (GOOD, "condition=Nope", f"{GOOD} has no condition Nope"),
        (GOOD, "delete", f"deletion: {GOOD} exists, Ready is True"),
        ("gpu-none", "create", "creation: gpu-none does not exist"),
        (BAD, "jsonpath={.spec.index}=9", "has 1"),
        (GOOD, "jsonpath={.status.recommendedAction}", "has no {.status.recommendedAction}"),
        (GOOD, "jsonpath={.status.conditions[9]}", "does not fit: index 9 is outside"),
        (GOOD, "jsonpath={.status.conditions[*].status}=True", "has True, True, True"),
    ],
)
def test_what_is_not_so_ends_with_1_and_says_how_it_stands(run, name, goal, state):
    result = run("wait", "gpu", name, f"--for={goal}", "--timeout=0")
    assert (result.stdout, result.exit_code) == ("", 1)
    assert result.stderr.startswith("error: not met: ")
    assert state in result.stderr


def test_all_are_waited_for_and_those_that_meet_the_goal_are_printed(run):
    result = run("wait", "gpus", "--all", "--for=condition=Ready", "--timeout=200ms")
    assert (result.stdout, result.exit_code) == (f"gpu/{GOOD} condition met\n", 1)
    assert result.stderr == (
        f"error: timed out after 0.2s waiting for condition Ready=True: {BAD} is False (Xid79)\n"
    )


@pytest.mark.parametrize(
    ("args", "code", "why"),
    [
        (("nope", "--for=condition=Ready"), 1, "no GPU is named nope"),
        (("nope", "--for=jsonpath={.spec}"), 1, "--for=create waits for one"),
        (("--for=create",), 2, "name the GPUs"),
        ((GOOD, "--all", "--for=create"), 2, "or give --all"),
        ((GOOD,), 2, "--for"),
        ((GOOD, "--for=Ready"), 2, "a goal is condition=TYPE"),
        ((GOOD, "--for=condition="), 2, "needs a type"),
        ((GOOD, "--for=condition=Ready=yes"), 2, "true, false or unknown"),
        ((GOOD, "--for=jsonpath={.a}="), 2, "a value is missing"),
        ((GOOD, "--for=jsonpath={.a=b"), 2, "needs a path in braces"),
        ((GOOD, "--for=jsonpath={.a[}=b"), 2, "should be an index"),
        ((GOOD, "--for=create", "--timeout=soon"), 2, "no duration such as"),
    ],
)
def test_what_cannot_be_waited_for_is_an_error_at_once(run, args, code, why):
    result = run("wait", "gpu", *args)
    assert (result.exit_code, result.stdout) == (code, "")
    assert why in result.stderr


def test_a_server_that_never_answers_is_3(run, tmp_path):
    result = run(
        "--server", f"{tmp_path}/no.sock", "wait", "gpu", GOOD, "--for=create", "--timeout=1"
    )
    assert result.exit_code == 3
    assert "the socket does not exist" in result.stderr


def waiting(node, *args):
    return Terminal(*node.options, "wait", "gpu", *args, "--timeout=60")


def test_it_says_what_it_waits_for_and_ends_when_that_is_so(node):
    providers = node.clients.v1alpha1.providers
    with waiting(node, BAD, "--for=condition=XidHealthy") as terminal:
        terminal.wait_for(lambda seen: f"waiting for condition XidHealthy=True: {BAD} is" in seen)
        # True for a moment only: that counts, too.
        providers.update_status(BAD, GpuStatus((Condition("XidHealthy", TRUE),)), provider_id="fan")
        providers.update_status(BAD, health(BAD), provider_id="fan")
        assert terminal.end() == 0
        terminal.wait_for(lambda seen: f"gpu/{BAD} condition met\r\n" in seen)


def test_coming_and_going(node):
    providers = node.clients.v1alpha1.providers
    with waiting(node, "gpu-c", "gpu-d", "--for=create") as terminal:
        terminal.wait_for(lambda seen: "creation: gpu-c does not exist and 1 more" in seen)
        providers.register("gpu-c", provider_id="fan")
        terminal.wait_for(lambda seen: "gpu/gpu-c condition met" in seen)
        providers.register("gpu-d", provider_id="fan")
        assert terminal.end() == 0
    with waiting(node, "gpu-c", "--for=delete") as terminal:
        terminal.wait_for(lambda seen: "deletion: gpu-c exists" in seen)
        providers.unregister("gpu-c", provider_id="fan")
        assert terminal.end() == 0
    providers.unregister("gpu-d", provider_id="fan")


def test_ctrl_c_ends_it(node):
    with waiting(node, BAD, "--for=condition=Ready") as terminal:
        terminal.wait_for(lambda seen: "waiting for" in seen)
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == 1
        terminal.wait_for(lambda seen: "Aborted!" in seen)


def test_it_outlives_the_server_and_begins_before_it(tmp_path):
    options = ("--server", f"{tmp_path}/device.sock")
    args = (*options, "wait", "gpu", "gpu-a", "--timeout=-1s")
    with (
        Terminal(*args, "--for=create") as early,
        Clientset.connect(f"{tmp_path}/provider.sock") as clients,
    ):
        providers = clients.v1alpha1.providers
        early.wait_for(lambda seen: "waiting for the server: no server answers at" in seen)
        with running_server(tmp_path) as server:
            providers.register("gpu-a", provider_id="fan")
            assert early.end() == 0
            with Terminal(*args, "--for=condition=Ready") as terminal:
                terminal.wait_for(lambda seen: "is Unknown (NoConditions)" in seen)
                server.kill()
                terminal.wait_for(lambda seen: "; no server answers at" in seen)
                with running_server(tmp_path):
                    providers.register("gpu-a", provider_id="fan")
                    providers.update_condition("gpu-a", Condition("A", TRUE), provider_id="fan")
                    assert terminal.end() == 0


def test_without_a_terminal_it_says_nothing_until_the_end(node, run):
    timer = threading.Timer(
        0.5,
        node.clients.v1alpha1.providers.update_condition,
        (GOOD, Condition("XidHealthy", FALSE, "Xid48")),
        {"provider_id": "fan"},
    )
    timer.start()
    result = run("wait", "gpu", GOOD, "--for=condition=Ready=false")
    timer.join()
    assert (result.exit_code, result.output) == (0, f"gpu/{GOOD} condition met\n")
    node.clients.v1alpha1.providers.update_status(GOOD, health(GOOD), provider_id="fan")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("1.5", 1.5),
        ("90s", 90),
        ("5m", 300),
        ("1h30m", 5400),
        ("500ms", 0.5),
        ("-1s", -1),
    ],
)
def test_a_duration_is_that_of_kubectl(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59))
def test_parts_of_a_duration_add_up(hours, minutes, seconds):
    assert parse_duration(f"{hours}h{minutes}m{seconds}s") == hours * 3600 + minutes * 60 + seconds


@pytest.mark.parametrize("text", ["", "s", "1d", "5 m", "1m5", "--1s", "1e3"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="no duration"):
        parse_duration(text)
