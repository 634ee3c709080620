"""When a publisher is called: for every history of views, successes and failures."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from device_api_core.plugins.outlook import RESYNC_SECONDS, Outlook, View
from device_api_core.resources import (
    READY,
    Condition,
    ConditionStatus,
    Gpu,
    GpuSpec,
    GpuStatus,
    ObjectMeta,
)

TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN
INTERVAL, GRACE, STEP = 10.0, 60.0, 1.0


def gpu(name, ready=TRUE, reason="", message="", action=""):
    status = GpuStatus((Condition(READY, ready, reason, message),), action)
    return Gpu(ObjectMeta(name), GpuSpec(), status)


GOOD = View((gpu("a"), gpu("b")))
BAD = View((gpu("a", FALSE, "Xid79"), gpu("b")))
DOUBT = View((gpu("a", UNKNOWN, "ServerRestarted"), gpu("b")))
STALE = View(GOOD.gpus, "the server has not answered")

views = st.builds(
    lambda statuses, stale: View(
        tuple(gpu(name, status) for name, status in zip("abc", statuses, strict=False)), stale
    ),
    st.lists(st.sampled_from([TRUE, TRUE, FALSE, UNKNOWN]), max_size=3),
    st.sampled_from(["", "", "", "the server has not answered"]),
)


def outlook():
    return Outlook(INTERVAL, GRACE)


def after(view, at=0.0):
    """An outlook that has published that."""
    made = outlook()
    made.published(view, at, at)
    return made


def first_due(made, view, since, until=10_000):
    """When it becomes due, looked at each second from ``since`` on."""
    return next((t for t in range(since, until) if made.is_due(view, float(t))), math.inf)


def test_the_first_view_is_due_at_once_and_then_nothing_is():
    assert outlook().is_due(GOOD, 0)
    assert first_due(after(GOOD), GOOD, 1) == RESYNC_SECONDS


def test_a_change_after_a_quiet_time_is_due_at_once_and_the_next_one_after_the_interval():
    assert first_due(after(GOOD), BAD, 100) == 100
    assert first_due(after(GOOD), BAD, 3) == INTERVAL
    assert first_due(after(BAD), GOOD, 3) == INTERVAL


def test_every_kind_of_bad_news_is_due_at_once():
    for news in (
        BAD,
        View((gpu("a", FALSE, "Xid79"), gpu("b", UNKNOWN))),
        View((gpu("a", FALSE),)),
    ):
        assert first_due(after(GOOD), news, 50) == 50
    for news in (
        View((gpu("a", FALSE, "Xid48"), gpu("b"))),
        View((gpu("a", FALSE, "Xid79", action="RESTART_BM"), gpu("b"))),
        View((*BAD.gpus, gpu("c", FALSE))),
        # What nobody calls bad any more, though nobody calls it good.
        DOUBT,
    ):
        assert first_due(after(BAD), news, 50) == 50


def test_doubt_alone_has_to_last():
    assert first_due(after(GOOD), DOUBT, 50) == 50 + GRACE
    assert first_due(after(BAD), View((BAD.gpus[0], gpu("b", UNKNOWN))), 50) == 50 + GRACE
    assert first_due(after(GOOD), View(), 50) == 50 + GRACE
    # Also at the start: a process that is upgraded with its server must not say so.
    assert first_due(outlook(), DOUBT, 0) == GRACE
    assert first_due(outlook(), View(), 0) == GRACE


def test_doubt_that_is_over_starts_anew():
    made = after(GOOD)
    assert first_due(made, DOUBT, 50, 100) == math.inf
    assert not made.is_due(GOOD, 100)
    assert first_due(made, DOUBT, 101) == 101 + GRACE


def test_what_is_doubted_is_not_published_again_meanwhile():
    made = after(GOOD)
    began = round(RESYNC_SECONDS) - 5
    assert first_due(made, DOUBT, began) == began + GRACE


def test_a_view_that_is_not_current_has_waited_enough():
    assert first_due(after(GOOD), STALE, 50) == 50


def test_doubt_that_is_published_is_no_news_and_its_end_is():
    assert first_due(after(DOUBT), DOUBT, 1) == RESYNC_SECONDS
    assert first_due(after(DOUBT), GOOD, 50) == 50
    assert first_due(after(View()), View(), 1) == RESYNC_SECONDS


def test_a_failure_waits_for_its_pause_and_no_longer():
    made = after(GOOD)
    assert made.is_due(BAD, 50)
    made.failed(53)
    assert first_due(made, BAD, 50) == 53
    made.published(BAD, 53, 54)
    assert first_due(made, GOOD, 55) == 53 + INTERVAL


@given(
    st.lists(st.tuples(views, st.integers(1, 90), st.booleans(), st.floats(0.5, 60)), max_size=40)
)
def test_over_any_history(history):
    """Each view lasts for some seconds; each attempt succeeds or fails with a pause."""
    made, now = outlook(), 0.0
    published, success_at, retry_at, doubted_since = None, -math.inf, None, None
    for view, seconds, succeeds, pause in history:
        for _ in range(seconds):
            now += STEP
            doubts = view.only_doubts(published)
            doubted_since = (doubted_since or now) if doubts else None
            waited = not doubts or now - doubted_since >= GRACE
            due = made.is_due(view, now)
            if due:
                # Never in a hurry, never without a reason.
                assert waited
                assert retry_at is None or now >= retry_at
                if retry_at is None:
                    assert now - success_at >= INTERVAL
                    assert view != published or now - success_at >= RESYNC_SECONDS
            elif view.bad != (published or View()).bad:
                # Bad news, and its end, wait for nothing else.
                assert now < retry_at if retry_at is not None else now - success_at < INTERVAL
            if due and succeeds:
                made.published(view, now, now)
                published, success_at, retry_at = view, now, None
            elif due:
                retry_at = now + pause
                made.failed(retry_at)
