"""One contract, three homes: the same calls have the same results and raise the same errors."""

from __future__ import annotations

import itertools
import logging
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "support"))

from conformant.acts import FAN, FOREIGN, PUMP
from homes import NAME, SECONDS, SUPPORT, Home, Raised, install, result

from device_api_core.client.errors import DeadlineExceeded
from device_api_core.errors import (
    AlreadyExists,
    InvalidArgument,
    LimitExceeded,
    NotFound,
    UpdateAborted,
)
from device_api_core.resources import ConditionStatus
from device_api_core.testing.nodes import ProcessNode

HOMES = ("thread", "process", "alone")
IN_SERVER = ("thread", "process")
UNIQUE = itertools.count()
TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN


@pytest.fixture(scope="module", autouse=True)
def _installed(tmp_path_factory):
    """The provider is installed in this process and in those that it starts."""
    directory = tmp_path_factory.mktemp("site")
    install(directory)
    paths = [str(directory), str(SUPPORT)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", ":".join(paths))
        for path in paths:
            patch.syspath_prepend(path)
        yield


@pytest.fixture(scope="module", params=HOMES)
def shared(request, _installed):
    """One home for the tests that leave it as it was."""
    home = Home(request.param)
    yield home.start()
    home.close()


@pytest.fixture
def home(shared):
    """The provider has registered ``gpu-0`` and said that its fan is well."""
    shared.do("register")
    shared.do("set_fan")
    yield shared
    shared.do("withdraw")
    shared.node.clients.admin.forget_gpu("gpu-0")


@pytest.fixture
def alone_home(request, _installed):
    """A home of the test's own, in the thread of ``own_home`` if it names none."""
    home = Home(**request.param)
    yield home.start()
    home.close()


def own(*kinds, **options):
    """Run the test in homes that it may break."""
    params = [{"kind": kind, **options} for kind in kinds]
    return pytest.mark.parametrize("alone_home", params, indirect=True, ids=kinds)


# --- single calls


def test_registering_is_idempotent_and_merges_the_spec(home):
    assert home.do("register", "gpu-1", uuid="GPU-A") is True
    assert home.do("register", "gpu-1", index=3) is False
    spec = home.gpu("gpu-1").spec
    assert (spec.uuid, spec.index) == ("GPU-A", 3)
    home.do("withdraw", "gpu-1")
    with pytest.raises(NotFound):
        home.gpu("gpu-1")


def test_a_uuid_belongs_to_one_gpu(home):
    home.do("register", "gpu-1", uuid="GPU-A")
    kind, message = home.refused("register", "gpu-2", uuid="gpu-a")
    assert kind is AlreadyExists
    assert "gpu-1" in message
    home.do("withdraw", "gpu-1")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (("register", ""), "gpu: must not be empty"),
        (
            ("set_type", FOREIGN),
            f"condition.type: provider {NAME} does not declare {FOREIGN}: add it to types",
        ),
        (
            ("set_type", FAN, "Maybe"),
            "condition.status: must be True, False or Unknown, not 'Maybe'",
        ),
        (
            ("set_status", [(FAN, "True"), (FAN, "False")]),
            "status.conditions[1].type: FanHealthy occurs twice in one status",
        ),
    ],
    ids=["name", "type", "status", "twice"],
)
def test_a_wrong_value_is_refused_and_changes_nothing(home, call, message):
    before = home.gpu()
    assert home.refused(*call) == (InvalidArgument, message)
    assert home.gpu() == before


def test_a_condition_is_visible_when_the_call_returns(home):
    home.do("set_fan", FALSE, reason="Stopped", message="0 rpm", action="RESTART_VM")
    found = home.gpu().condition(FAN)
    assert (found.status, found.reason, found.message) == ("False", "Stopped", "0 rpm")
    assert found.provider_id == NAME
    assert home.gpu().status.recommended_action == "RESTART_VM"


def test_an_action_stays_until_it_is_replaced(home):
    home.do("set_fan", FALSE, action="RESTART_VM")
    home.do("set_fan", FALSE, reason="Still")
    assert home.gpu().status.recommended_action == "RESTART_VM"
    home.do("set_fan", FALSE, action="")
    assert home.gpu().status.recommended_action == ""


def test_a_domain_may_be_declared_whole(home):
    home.do("set_type", PUMP, "False")
    assert home.condition(PUMP) == ("False", "")


def test_a_status_replaces_everything(home):
    home.do("set_type", PUMP, "False")
    home.do("set_status", [(FAN, "Unknown")], action="CONTACT_SUPPORT")
    assert home.condition(PUMP) is None
    assert home.condition(FAN) == ("Unknown", "")
    assert home.gpu().status.recommended_action == "CONTACT_SUPPORT"


def test_what_nobody_registered_is_not_found(home):
    assert home.refused("set_fan", gpu="gpu-9") == (NotFound, 'gpu "gpu-9" not found')


def test_withdrawing_keeps_a_fault(home):
    home.do("set_type", PUMP, "False")
    home.do("withdraw")
    assert home.condition(FAN) is None
    assert home.condition(PUMP) == ("False", "")


def test_an_opinion_of_ready_counts_and_is_not_read_back(home):
    home.do("set_type", "Ready", "False", reason="Opinion")
    assert home.condition("Ready") == ("False", "Opinion")
    assert [c.type for c in home.do("known")["gpu-0"]] == [FAN]


def test_known_is_what_the_provider_owns(home):
    home.do("set_type", PUMP, "False", reason="Dry", message="no water")
    home.node.clients.v1alpha1.providers.register("other", provider_id="neighbour")
    conditions = {c.type: c for c in home.do("known")["gpu-0"]}
    assert set(home.do("known")) == {"gpu-0"}
    assert conditions == {c.type: c for c in home.gpu().status.conditions if c.type != "Ready"}
    home.node.clients.admin.forget_gpu("other")


def test_gpus_are_everybodys(home):
    home.node.clients.v1alpha1.providers.register("other", provider_id="neighbour")
    assert home.do("gpus") == list(home.node.clients.v1alpha1.gpus.list().items)
    home.node.clients.admin.forget_gpu("other")


def test_synced_and_the_summary_are_shown(home):
    home.do("synced")
    home.do("alive", "two\nlines")
    assert (home.info.synced, home.info.summary, home.info.state) == (True, "two lines", "running")
    home.do("alive", "x" * 2_000)
    assert home.info.summary == "x" * 1_024


def test_what_an_operator_clears_reaches_the_provider(home):
    home.do("set_fan", FALSE)
    home.node.clients.admin.clear_condition("gpu-0", FAN)
    assert home.condition(FAN) == ("Unknown", "ClearedByOperator")
    # Elsewhere it is noticed with the next heartbeat, which an urgent summary brings about.
    home.do("alive", "looking")
    assert home.cleared.get(timeout=SECONDS) == ("gpu-0", FAN)
    home.do("alive", "looked")
    assert home.condition(FAN) == ("Unknown", "ClearedByOperator")
    home.do("set_fan", TRUE)
    assert home.condition(FAN) == ("True", "")
    assert home.cleared.empty()


# --- numbers


def shown(home, name, **labels):
    """What the metrics page says of one of the provider's series, when all was told."""
    # Elsewhere it is told with the next heartbeat, which an urgent summary brings about.
    home.do("alive", f"telling {next(UNIQUE)}")
    return home.node.metric(f"device_api_provider_{name}", provider_id=NAME, **labels)


def test_counters_add_up_by_label(home):
    before = shown(home, "xids_total", gpu="gpu-0", code="79") or 0
    home.do("count", "xids", gpu="gpu-0", code=79)
    home.do("count", "xids", 2, gpu="gpu-0", code="79")
    home.do("count", "xids", 0.5, gpu="gpu-1", code=48)
    assert shown(home, "xids_total", gpu="gpu-0", code="79") == before + 3
    # Telling it again counts it once.
    assert shown(home, "xids_total", gpu="gpu-0", code="79") == before + 3


def test_gauges_show_the_last_value(home):
    home.do("gauge", "last_scrape_timestamp_seconds", 1.75e9)
    home.do("gauge", "fan_speed_rpm", 900, fan="a")
    home.do("gauge", "fan_speed_rpm", 1_100.5, fan="a")
    assert shown(home, "fan_speed_rpm", fan="a") == 1_100.5
    assert shown(home, "last_scrape_timestamp_seconds") == 1.75e9
    home.do("gauge", "fan_speed_rpm", None, fan="a")
    assert shown(home, "fan_speed_rpm", fan="a") is None


@pytest.mark.parametrize(
    ("call", "labels", "field"),
    [
        (("count", "Xids"), {}, "name"),
        (("gauge", "xids_total", 1), {}, "name"),
        (("count", "xids", -1), {}, "amount"),
        (("gauge", "xids", float("nan")), {}, "value"),
        (("count", "xids"), {"provider_id": "nvml"}, "labels"),
        (("count", "xids"), {"ü": "1"}, "labels"),
        (("count", "xids"), dict.fromkeys("abcde", 1), "labels"),
    ],
)
def test_a_wrong_number_is_refused_at_once(home, call, labels, field):
    with pytest.raises(Raised) as raised:
        home.do(*call, **labels)
    kind, message = raised.value.args
    assert (kind, message.partition(":")[0]) == ("InvalidArgument", field)


@own(*HOMES)
def test_too_many_series_are_left_out_and_counted(alone_home):
    # Of both kinds as many as there is room for all together.
    alone_home.do("count_many", 512)
    assert shown(alone_home, "series_refused_total") == 512
    assert shown(alone_home, "noise_total", number="255") == 1
    assert shown(alone_home, "hum", number="255") == 255
    assert shown(alone_home, "noise_total", number="256") is None
    alone_home.do("count", "noise", number=255)
    assert shown(alone_home, "noise_total", number="255") == 2


@own(*HOMES)
def test_a_counter_goes_on_after_a_crash_and_a_gauge_does_not(alone_home):
    home = prepared(alone_home)
    home.do("count", "xids", 3)
    home.do("gauge", "fan_speed_rpm", 900)
    assert (shown(home, "xids_total"), shown(home, "fan_speed_rpm")) == (3, 900)
    home.do("count", "xids")
    home.order("crash")
    home.started()
    assert shown(home, "fan_speed_rpm") is None
    home.do("count", "xids")
    # What a process has counted since its last heartbeat ends with it.
    assert shown(home, "xids_total") == (4 if home.kind == "process" else 5)


# --- held updates


@pytest.fixture
def may_hold(home):
    """The provider's last update no longer stands in the way of the next."""

    def lasted():
        began = time.monotonic()
        try:
            home.do("held", "gpu-0", status=TRUE)
        except Raised as raised:
            if raised.args[0] != "LimitExceeded":
                raise
            return None
        return time.monotonic() - began

    time.sleep(home.until(lasted))
    home.do("set_fan", action="")
    return home


def held(home, *gpus):
    """An update that is held until the test says ``release``; returns where its end is told."""
    answer = home.order("held", *gpus, wait=True)
    home.until(lambda: is_held(home))
    return answer


def is_held(home):
    """Whether readers wait."""
    try:
        home.gpu(timeout=0.2)
    except DeadlineExceeded:
        return True
    return False


def test_readers_wait_while_an_update_is_held(may_hold):
    home = may_hold
    answer = held(home, "gpu-0")
    # Writes do not wait, its own included.
    home.do("set_type", PUMP)
    assert is_held(home)
    home.do("release")
    assert home.condition(FAN) == ("False", "Stopped")
    assert result(answer) is None
    assert home.gpu().status.recommended_action == "RESTART_VM"


@pytest.mark.parametrize("call", ["known", "gpus"])
def test_a_provider_reads_while_it_holds_an_update(may_hold, call):
    # What it has staged is not among it.
    before = may_hold.do(call)
    assert may_hold.do("held", "gpu-0", early=call) == before


def test_an_exception_aborts_the_update(may_hold):
    with pytest.raises(Raised, match="boom"):
        may_hold.do("held", "gpu-0", error="boom")
    found = may_hold.gpu().condition(FAN)
    assert (found.status, found.reason) == ("Unknown", "UpdateAborted")
    assert found.message == "the provider's update was aborted: RuntimeError: boom"
    may_hold.do("set_fan")
    assert may_hold.condition(FAN) == ("True", "")


def test_only_the_gpus_in_doubt_are_doubted(may_hold):
    may_hold.do("register", "gpu-1")
    may_hold.do("set_fan", gpu="gpu-1")
    with pytest.raises(Raised):
        may_hold.do("held", "gpu-1", error="boom")
    assert may_hold.condition(FAN) == ("True", "")
    assert may_hold.condition(FAN, "gpu-1") == ("Unknown", "UpdateAborted")
    may_hold.do("alive", "a heartbeat")
    assert may_hold.condition(FAN, "gpu-1") == ("Unknown", "UpdateAborted")
    may_hold.do("withdraw", "gpu-1")


def test_an_update_expires(may_hold):
    answer = held(may_hold, "gpu-0")
    may_hold.until(lambda: may_hold.condition(FAN) == ("Unknown", "UpdateAborted"))
    may_hold.do("release")
    with pytest.raises(Raised) as raised:
        result(answer)
    assert raised.value.args[0] == UpdateAborted.__name__
    assert may_hold.condition(FAN) == ("Unknown", "UpdateAborted")


def test_a_refused_change_drops_the_whole_update(may_hold):
    assert may_hold.refused("held", "gpu-0", also="gpu-9")[0] is NotFound
    assert may_hold.condition(FAN) == ("Unknown", "UpdateAborted")


def test_an_update_of_an_unknown_gpu_is_refused(may_hold):
    assert may_hold.refused("held", "gpu-9")[0] is NotFound
    assert may_hold.condition(FAN) == ("True", "")


def test_one_update_is_held_at_a_time(may_hold):
    kind, message = may_hold.refused("held_twice")
    assert (kind, message) == (LimitExceeded, f"provider {NAME} already holds an update")


def test_the_next_update_is_not_held_at_once(may_hold):
    kind, message = may_hold.refused("held_at_once_again")
    assert kind is LimitExceeded
    assert "may hold its next update in" in message


# --- life and loss


def prepared(home):
    """A fault on gpu-0, a healthy gpu-1."""
    for gpu in ("gpu-0", "gpu-1"):
        home.do("register", gpu)
        home.do("set_fan", TRUE, gpu)
    home.do("set_fan", FALSE, reason="Stopped")
    home.do("synced")
    return home


@own(*HOMES)
def test_a_crash_is_survived_by_bad_news_only(alone_home):
    home = prepared(alone_home)
    home.order("crash")
    home.started()
    assert home.condition(FAN) == ("False", "Stopped")
    found = home.gpu("gpu-1").condition(FAN)
    assert (found.status, found.reason) == ("Unknown", "ProviderFailed")
    assert found.message == f"provider {NAME} raised RuntimeError: conformant crash"
    assert {gpu: [str(c.status) for c in cs] for gpu, cs in home.do("known").items()} == {
        "gpu-0": ["False"],
        "gpu-1": ["Unknown"],
    }


@own("process")
def test_a_process_that_is_killed_is_replaced(alone_home, caplog):
    caplog.set_level(logging.INFO)
    home = prepared(alone_home)
    home.order("killed")
    home.started()
    assert home.condition(FAN) == ("False", "Stopped")
    message = home.gpu("gpu-1").condition(FAN).message
    assert message == f"provider {NAME} was killed by SIGKILL"
    said = [r for r in caplog.records if r.getMessage() == "last words"]
    assert [r.provider for r in said] == [NAME]
    assert home.info.restarts == 1


@own(*IN_SERVER, interval=0.3)
def test_a_provider_that_hangs_is_replaced(alone_home):
    home = prepared(alone_home)
    home.order("hang")
    home.started()
    assert home.condition(FAN) == ("False", "Stopped")
    assert home.condition(FAN, "gpu-1") == ("Unknown", "ProviderLost")


@own("alone", interval=0.3)
def test_a_provider_that_hangs_alone_ends_its_process(alone_home):
    home = prepared(alone_home)
    home.order("hang")
    home.until(lambda: not home.process.is_alive)
    assert home.condition(FAN) == ("False", "Stopped")
    home.until(lambda: home.condition(FAN, "gpu-1") == ("Unknown", "ProviderLost"))


@own("process")
def test_a_process_leaves_nothing_behind(alone_home):
    home = prepared(alone_home)
    assert home.info.home == "process"
    assert [p.name for p in home.directory.glob(f"{NAME}-*/*.sock")] == ["provider.sock"]
    home.node.stop()
    assert not list(home.directory.glob(f"{NAME}-*"))
    # Nor does a server that was killed, for longer than until the next one starts.
    stale = home.directory / f"{NAME}-abcdefgh"
    stale.mkdir()
    (stale / "provider.sock.lock").touch()
    home.node.start()
    home.started()
    assert not stale.exists()


@own("process", node=ProcessNode)
def test_a_process_ends_with_its_server(alone_home):
    home = prepared(alone_home)
    home.order("hang")
    home.node.kill()
    home.until(lambda: has_ended(home.pid))


def has_ended(pid):
    """Whether the process is gone, or waits for nothing but to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@own("alone")
def test_a_new_server_is_told_what_counts_and_nothing_else(alone_home):
    home = prepared(alone_home)
    home.do("register", "gpu-2")
    home.do("withdraw", "gpu-2")
    home.refused("set_type", FOREIGN)
    home.do("count", "xids", 3)
    before = {gpu.name: _visible(gpu) for gpu in home.node.clients.v1alpha1.gpus.list().items}
    home.node.stop()
    home.node.start()
    gpus = home.node.clients.v1alpha1.gpus
    home.until(lambda: {gpu.name: _visible(gpu) for gpu in gpus.list().items} == before)
    home.until(lambda: home.info.synced)
    assert home.info.lease_seconds == pytest.approx(30.0)
    assert home.node.metric("device_api_provider_xids_total", provider_id=NAME) == 3


def _visible(gpu):
    return gpu.spec, [(c.type, c.status, c.reason, c.provider_id) for c in gpu.status.conditions]
