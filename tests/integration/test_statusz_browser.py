"""``/statusz`` in a real browser: legible at 8 and at 72 GPUs, on a phone and in the dark, live,
and unmoved by what a hostile provider says."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser
from process import Server
from wire import Api, condition

from device_api_core._proto import gpu_pb2

pytestmark = pytest.mark.once("no transport serves pages")

PICTURES = Path(__file__).resolve().parents[2] / "docs" / "images"
WIDE, PHONE = (1280, 800), (390, 844)
SHOWN = "document.querySelectorAll('#gpus tbody tr').length === {} && {}"
COMPLETE = "document.querySelector('#limits progress') !== null"
HOSTILE = (
    "<img src=x onerror=\"document.title='owned'\"></td></table>"
    "<script>document.title='owned'</script><a href=javascript:alert(1)>click</a>" + "W" * 200
)


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with tempfile.TemporaryDirectory() as path, Browser(chromium, Path(path)) as running:
        yield running


def populate(api: Api, count: int) -> None:
    """A node of so many GPUs, some of them not well."""
    for index in range(count):
        spec = gpu_pb2.GpuSpec(
            uuid=f"GPU-{index:08x}-18d6-5f48-812e-f5b3b8715ec2",
            index=index,
            pci_bus_id=f"0000:{index + 16:02x}:00.0",
            product_name="NVIDIA H100 80GB HBM3",
        )
        name = spec.uuid.lower()
        api.register(name, "board", spec=spec)
        api.set(name, "BoardHealthy", "True", "board")
        if index % 24 == 3:
            text = "XID 79: the GPU has fallen off the bus. To do: drain the node and reboot it."
            bad = condition("BoardHealthy", "False", reason="Xid79", message=text)
            api.set_status(name, bad, provider_id="board", recommended_action="RESTART_BM")
        if index % 24 == 5:
            api.set(name, "FanHealthy", "Unknown", "cooling", reason="NoAnswer")
    api.heartbeat("cooling")
    api.heartbeat("board")


def look(
    browser: Browser, server: Server, size: tuple[int, int], gpus: int, *, dark: bool = False
) -> None:
    """Open the page and wait until it is complete."""
    url = f"http://{server.addresses['health']}/statusz"
    browser.open(url, width=size[0], height=size[1], dark=dark)
    browser.wait(SHOWN.format(gpus, COMPLETE))


@pytest.fixture(scope="module", params=[8, 72])
def node(request: pytest.FixtureRequest) -> Iterator[tuple[Server, int]]:
    with tempfile.TemporaryDirectory(prefix="dapi-") as path:
        with Server(Path(path), "--node-name=gpu-node-7") as server:
            populate(server.wait_serving().api(), request.param)
            yield server, request.param
        assert not server.tracebacks, server.text


@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_all_of_it_can_be_read(
    browser: Browser, node: tuple[Server, int], size: tuple[int, int], dark: bool
) -> None:
    server, gpus = node
    look(browser, server, size, gpus, dark=dark)
    assert browser.evaluate("document.documentElement.scrollWidth") <= size[0]
    # The sick come first, and the map shows every GPU at its place on the first screen.
    assert "unhealthy" in browser.evaluate("document.querySelector('#gpus tbody tr').innerText"), (
        browser.evaluate("document.body.innerText")
    )
    tiles = browser.evaluate("[...document.querySelectorAll('#map a')].map(a => a.textContent)")
    assert [tile.split()[1] for tile in tiles] == [str(index) for index in range(gpus)]
    assert tiles[3] == "✕ 3"
    bottom = "document.querySelector('#map').getBoundingClientRect().bottom"
    assert browser.evaluate(bottom) < size[1]
    hidden = (
        "[...document.querySelectorAll('#gpus tr.False *, #providers span')].filter(e => "
        "e.children.length === 0 && e.textContent && e.getBoundingClientRect().width === 0).length"
    )
    assert browser.evaluate(hidden) == 0
    for element in ("body", "#gpus .word.False", "#gpus .quiet", "#gpus .word.True"):
        assert contrast(browser, element) >= 4.5, element
    assert browser.messages == []


def contrast(browser: Browser, element: str) -> float:
    """How well a text stands out, as WCAG defines it; 4.5 is what it asks for."""
    colours = browser.evaluate(
        f"""(() => {{
          let e = document.querySelector({element!r}), text = getComputedStyle(e).color, back;
          while ((back = getComputedStyle(e).backgroundColor) === "rgba(0, 0, 0, 0)")
            e = e.parentElement;
          return [text, back].map(c => c.match(/[0-9]+/g).slice(0, 3).map(Number));
        }})()"""
    )
    low, high = sorted(luminance(colour) for colour in colours)
    return (high + 0.05) / (low + 0.05)


def luminance(colour: list[int]) -> float:
    channels = [c / 255 for c in colour]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_a_change_is_shown_without_asking(browser: Browser, server: Server) -> None:
    api = server.api()
    api.register("gpu-live", "fan")
    api.set("gpu-live", "FanHealthy", "True", "fan")
    look(browser, server, WIDE, 1)
    browser.wait("document.querySelector('#gpus .word').textContent === '✓ healthy'")
    api.set("gpu-live", "FanHealthy", "False", "fan", reason="Stuck")
    browser.wait("document.querySelector('#gpus .word').textContent === '✕ unhealthy'")
    assert "Stuck" in browser.evaluate("document.querySelector('#gpus').innerText")
    api.unregister("gpu-live")
    browser.wait("document.querySelector('#gpus').innerText.includes('no GPU is known')")


def test_what_a_hostile_provider_says_is_shown_and_does_nothing(
    browser: Browser, server: Server
) -> None:
    api = server.api()
    evil = f"<b>{HOSTILE}"[:128]
    api.register("gpu-hostile", evil, spec=gpu_pb2.GpuSpec(product_name=HOSTILE[:256]))
    bad = condition("Evil", "False", reason=HOSTILE, message=HOSTILE)
    api.set_status("gpu-hostile", bad, provider_id=evil, recommended_action=HOSTILE)
    for size in (WIDE, PHONE):
        look(browser, server, size, 1)
        browser.wait("document.querySelector('#providers').innerText.includes('<b>')")
        text = browser.evaluate("document.querySelector('#gpus').innerText")
        assert "<script>document.title='owned'</script>" in text
        assert "GPU health of" in browser.evaluate("document.title")
        assert (
            browser.evaluate("document.querySelectorAll('img, script, b b, a:not(#map a)').length")
            == 1
        )
        assert browser.evaluate("document.documentElement.scrollWidth") <= size[0]
        # Even what got in as HTML would be stopped by the policy, and seen here.
        assert browser.messages == []
    api.unregister("gpu-hostile")


def test_the_policy_stops_what_the_page_did_not_bring(browser: Browser, server: Server) -> None:
    url = f"http://{server.addresses['health']}/statusz"
    browser.open(url, width=800, height=600)
    browser.wait(COMPLETE)
    title = browser.evaluate("document.title")
    browser.evaluate(
        "const s = document.createElement('script'); s.textContent = 'document.title = \"owned\"';"
        "document.body.append(s)"
    )
    assert browser.evaluate("document.title") == title
    assert any("Content Security Policy" in str(message) for message in browser.messages)


@pytest.mark.slow
def test_take_the_pictures_of_the_documentation(browser: Browser, node: tuple[Server, int]) -> None:
    server, gpus = node
    views = {8: (("wide", WIDE, False),), 72: (("dark", WIDE, True), ("phone", PHONE, False))}
    for name, size, dark in views[gpus]:
        look(browser, server, size, gpus, dark=dark)
        (PICTURES / f"statusz-{gpus}-{name}.png").write_bytes(browser.screenshot())
