"""The chart's dashboard: every query runs against a real Prometheus and finds something."""

import json
import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from device_api_fake_nvml import FakeNode
from picture import draw, expression
from process import Server
from scraping import CHART, Prometheus, scraped
from wire import Api

pytestmark = pytest.mark.once("Prometheus reads pages, which no transport serves")

DASHBOARD = json.loads((CHART / "dashboards" / "device-api-server.json").read_text("utf-8"))
PICTURE = Path(__file__).resolve().parents[2] / "docs" / "images" / "dashboard.svg"
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
TARGETS = [
    pytest.param(target, id=f"{panel['title']} {target['refId']}")
    for panel in PANELS
    for target in panel["targets"]
]


def trouble(node: FakeNode, server: Server, api: Api) -> None:
    """A bit of everything that is shown: a provider elsewhere, faults, a held update that
    a reader waits for, a call that fails."""
    name = api.list().items[0].metadata.name
    api.heartbeat("cooling", name)
    api.set(name, "PumpHealthy", "True", "cooling")
    api.set(name, "FanHealthy", "False", "cooling", reason="FanStuck")
    held = api.hold("cooling", name)
    reader = threading.Thread(target=api.get, args=(name,))
    reader.start()
    while not server.metric("readers_parked"):
        assert reader.is_alive()
    held.cancel()
    reader.join(10)
    with pytest.raises(Exception, match="not found"):
        api.get("absent")
    node.inject_xid(3, 79)
    node.inject_xid(5, 13)


@pytest.fixture(scope="module")
def busy(prometheus: str) -> Iterator[Prometheus]:
    """Prometheus over a server on which things have happened."""
    with scraped(prometheus) as (node, server, source):
        api = server.api()
        watch = api.watch()
        watch.next()
        trouble(node, server, api)
        # The fault, and rates over several scrapes that saw it.
        sick = 'device_api_server_gpu_unhealthy{reason="Xid79"}'
        source.wait(lambda: source.query(f"count_over_time({sick}[10s]) > 3"))
        yield source
        watch.cancel()


@pytest.mark.parametrize("target", TARGETS)
def test_every_query_finds_something(busy: Prometheus, target: dict[str, str]) -> None:
    found = busy.query(expression(target, "30s"))
    assert any(math.isfinite(float(series["value"][1])) for series in found), found


def test_every_panel_can_be_read() -> None:
    places = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + dx, at["y"] + dy) for dx in range(at["w"]) for dy in range(at["h"])}
        assert not cells & places
        places |= cells
        assert at["x"] + at["w"] <= 24
    assert all(panel["description"] for panel in PANELS)
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))


def test_the_picture_shows_every_panel(busy: Prometheus) -> None:
    now = time.time()
    root = ElementTree.fromstring(draw(DASHBOARD, busy, now - 10, now))
    texts = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {panel["title"] for panel in DASHBOARD["panels"]} <= texts
    assert "Xid79" in texts


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_draw_the_picture_of_the_documentation(prometheus: str) -> None:
    with scraped(prometheus) as (node, server, source):
        api = server.api()
        began = time.time()
        watches = [api.watch(timeout=300) for _ in range(20)]
        for second in range(100):
            api.list()
            if second in {20, 50}:
                trouble(node, server, api)
            if second == 80:
                api.set(api.list().items[0].metadata.name, "FanHealthy", "True", "cooling")
            time.sleep(1)
        PICTURE.write_text(draw(DASHBOARD, source, began, time.time()), encoding="utf-8")
        for watch in watches:
            watch.cancel()
