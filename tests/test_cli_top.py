"""``device-api top gpus``: what is on the screen, on a terminal and without one."""

import os
import re
import signal
import sys
import termios
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent / "support"))

import commandline
from commandline import (
    BAD,
    FALSE,
    GOOD,
    TRUE,
    Terminal,
    cells,
    health,
    plain,
    running_server,
    started,
)

from device_api_core.cli.board import Board
from device_api_core.cli.columns import said_by
from device_api_core.client import Clientset
from device_api_core.resources import READY, Condition, ConditionStatus, Gpu, GpuStatus, ObjectMeta

node, run = commandline.node, commandline.run

UNKNOWN = ConditionStatus.UNKNOWN
ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"
RED, GREEN = "\x1b[31m", "\x1b[32m"


def row(lines, name):
    return next((re.split(r" {2,}", line) for line in lines if line.startswith(name)), [])


def test_without_a_terminal_it_is_a_snapshot_with_the_worst_first(node, run):
    for args in ((), ("--once",)):
        result = run("top", "gpus", *args)
        assert result.exit_code == 0
        counts, empty, *table = result.stdout.splitlines()
        assert (counts, empty) == ("GPUs: 2   1 not ready   1 ready", "")
        heading, bad, good = cells("\n".join(table))
        assert heading == ["NAME", "READY", "REASON", "ACTION", "AGE", "PROVIDER", "MESSAGE"]
        assert bad[:4] + bad[5:] == [
            *(BAD, "False", "Xid79", "RESTART_BM", "fan", "the GPU fell off the bus")
        ]
        assert good[:2] == [GOOD, "True"]
    with started(*node.options, "top", "gpus") as process:
        text, _ = process.communicate(timeout=20)
        assert (process.returncode, "\x1b" in text) == (0, False)


def test_a_terminal_that_cannot_move_its_cursor_gets_a_snapshot(node):
    with Terminal(*node.options, "top", "gpus", TERM="dumb") as terminal:
        assert terminal.end() == 0
        terminal.wait_for(lambda seen: GOOD in seen)
        assert "\x1b[?" not in terminal.output
        assert "\x1b[H" not in terminal.output


def test_without_a_server_a_snapshot_is_3(run, tmp_path):
    assert run("--server", f"{tmp_path}/no.sock", "top", "gpus").exit_code == 3


def test_a_change_is_on_the_screen_and_q_gives_the_terminal_back(node):
    providers = node.clients.v1alpha1.providers
    with Terminal(*node.options, "top", "gpus", columns=150) as terminal:
        lines = terminal.wait_for_frame(lambda seen: row(seen, GOOD)[1:2] == ["True"])
        assert [plain(line) for line in lines[:3]] == [
            *("GPUs: 2   1 not ready   1 ready", "up to date", "")
        ]
        assert [plain(line).split()[0] for line in lines[3:]] == ["NAME", BAD, GOOD]
        assert f"{RED}False" in lines[4]
        assert f"{GREEN}True" in lines[5]
        fault = Condition("XidHealthy", FALSE, "Xid48", "double bit error")
        providers.update_condition(GOOD, fault, provider_id="fan")
        lines = terminal.wait_for_frame(lambda seen: row(seen, GOOD)[1:3] == ["False", "Xid48"])
        assert row([plain(line) for line in lines], GOOD)[-2:] == ["fan", "double bit error"]
        providers.update_status(GOOD, health(GOOD), provider_id="fan")
        terminal.wait_for_frame(lambda seen: row(seen, GOOD)[1:2] == ["True"])
        assert termios.tcgetattr(terminal.theirs) != terminal.modes
        terminal.type("q")
        assert terminal.end() == 0
        terminal.wait_for(lambda seen: seen.endswith(LEAVE))
        assert termios.tcgetattr(terminal.theirs) == terminal.modes


def test_no_color_leaves_the_colours_out_and_nothing_else(node):
    with Terminal(*node.options, "top", "gpus", columns=150, NO_COLOR="1") as terminal:
        lines = terminal.wait_for_frame(lambda seen: row(seen, BAD)[1:2] == ["False"])
        assert lines == [plain(line) for line in lines]
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == 0
        assert "\x1b[3" not in terminal.output


def test_it_follows_the_size_of_the_terminal(node):
    with Terminal(*node.options, "top", "gpus", columns=40, lines=5) as terminal:
        lines = terminal.wait_for_frame(lambda seen: len(seen) > 3)
        shown = [plain(line) for line in lines]
        assert shown[3].split() == ["NAME", "READY"]
        assert shown[4:] == ["… and 2 more"]
        terminal.resize(150, 24)
        terminal.process.send_signal(signal.SIGWINCH)
        terminal.wait_for_frame(lambda seen: row(seen, BAD)[-1:] == ["the GPU fell off the bus"])


def test_signals_that_end_or_stop_it_give_the_terminal_back(node):
    with Terminal(*node.options, "top", "gpus") as terminal:
        terminal.wait_for_frame(lambda seen: row(seen, BAD) != [])
        terminal.process.send_signal(signal.SIGTSTP)
        _, status = os.waitpid(terminal.process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        terminal.wait_for(lambda seen: seen.endswith(LEAVE))
        assert termios.tcgetattr(terminal.theirs) == terminal.modes
        terminal.process.send_signal(signal.SIGCONT)
        terminal.wait_for(lambda seen: ENTER in seen.rpartition(LEAVE)[2])
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.end() == 128 + signal.SIGTERM
        terminal.wait_for(lambda seen: seen.endswith(LEAVE))
        assert termios.tcgetattr(terminal.theirs) == terminal.modes


def test_while_the_server_is_away_it_says_so_and_shows_no_green(tmp_path):
    options = ("--server", f"{tmp_path}/device.sock")
    with (
        Terminal(*options, "top", "gpus", columns=150) as terminal,
        Clientset.connect(f"{tmp_path}/provider.sock") as clients,
    ):
        waiting = "waiting: no server answers at"
        lines = terminal.wait_for_frame(lambda seen: seen[1].startswith(waiting))
        assert plain(lines[0]) == "GPUs: not known yet"
        with running_server(tmp_path) as server:
            clients.v1alpha1.providers.register("gpu-a", provider_id="fan")
            status = Condition("A", TRUE)
            clients.v1alpha1.providers.update_condition("gpu-a", status, provider_id="fan")
            terminal.wait_for_frame(lambda seen: row(seen, "gpu-a")[1:2] == ["True"])
            server.send_signal(signal.SIGSTOP)
            stale = r"STALE, as of \d+s ago: unix:.* does not answer"
            terminal.wait_for_frame(lambda seen: re.fullmatch(stale, seen[1]))
            server.send_signal(signal.SIGCONT)
            terminal.wait_for_frame(lambda seen: seen[1] == "up to date")
            server.kill()
            stale = r"STALE, as of \d+s ago: no server answers at unix:.*"
            lines = terminal.wait_for_frame(lambda seen: re.match(stale, seen[1]))
            assert row([plain(line) for line in lines], "gpu-a")[1] == "True"
            assert GREEN not in "".join(lines)
        with running_server(tmp_path):
            clients.v1alpha1.providers.register("gpu-b", provider_id="fan")
            terminal.wait_for_frame(lambda seen: seen[1] == "up to date" and row(seen, "gpu-b"))


def gpu(*conditions, name="gpu-a", action=""):
    return Gpu(ObjectMeta(name), status=GpuStatus(conditions, action))


def test_the_provider_is_the_one_whose_condition_ready_repeats():
    said = Condition(READY, FALSE, "Xid79", "off the bus")
    old = Condition("A", FALSE, "Hot", "", 1, "fan")
    new = Condition("B", FALSE, "Xid79", "off the bus", 2, "nvml")
    other = Condition("C", UNKNOWN, "Xid79", "off the bus", 3, "dcgm")
    same = Condition("BA", FALSE, "Xid79", "off the bus", 1, "bridge")
    assert said_by(gpu(said, old, new, same, other)) == "nvml"
    assert said_by(gpu(said, same, old, new, other)) == "nvml"
    well = (Condition("A", TRUE, provider_id="nvml"), Condition("B", TRUE, provider_id="dcgm"))
    again = Condition("C", TRUE, provider_id="nvml")
    assert said_by(gpu(Condition(READY, TRUE), *well, again, Condition("D", TRUE))) == (
        "nvml,dcgm,(anonymous)"
    )
    assert said_by(gpu(Condition(READY, UNKNOWN, "NoConditions"))) == ""
    assert said_by(gpu()) == ""


CONDITIONS = st.builds(
    Condition,
    st.just(READY),
    st.sampled_from(ConditionStatus),
    st.sampled_from(["", "Xid79", "A" * 60]),
    st.text(max_size=90),
)
GPUS = st.lists(
    st.builds(
        lambda c, name, action: gpu(c, name=name, action=action),
        CONDITIONS,
        st.text("abc-9", min_size=1, max_size=60),
        st.sampled_from(["", "RESTART_BM", "COMPONENT_RESET"]),
    ),
    max_size=12,
)


@given(GPUS, st.integers(12, 200), st.integers(4, 40), st.sampled_from(["", "why " * 30]))
def test_a_board_fits_its_screen_and_has_the_worst_first(gpus, columns, lines, outage):
    board = Board(gpus, age_seconds=1.0, outage=outage)
    shown = [plain(line) for line in board.lines(columns, lines)]
    assert shown == board.lines(columns, lines, coloured=False)
    assert all(len(line.rstrip()) <= columns for line in shown)
    assert len(shown) <= max(lines, 5)
    everything = board.lines(coloured=False)
    order = ["False", "Unknown", "True"]
    ranks = [order.index(re.split(r" {3}\s*", line)[1]) for line in everything[4:]]
    assert ranks == sorted(ranks)
    assert len(ranks) == len(gpus)
    if len(shown) < len(everything):
        hidden = int(re.match(r"… and (\d+) m?", shown[-1])[1])
        assert len(shown) + hidden == len(everything) + 1


@given(GPUS.filter(bool), st.integers(60, 200))
def test_what_is_cut_is_marked(gpus, columns):
    whole, cut = (Board(gpus).lines(width, coloured=False)[3:] for width in (None, columns))
    for full, line in zip(whole, cut, strict=True):
        for cell, part in zip(re.split(r" {3}\s*", full), re.split(r" {3}\s*", line), strict=False):
            assert part.rstrip() in {cell.rstrip(), cell} or part.rstrip().endswith("…")
