"""Publishers of every kind, good and bad, as `device-api publish` runs them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from installed import Installed
from process import environment

from device_api_core.client import Clientset
from device_api_core.plugins import Count, Publisher
from device_api_core.plugins.publication import HUNG, Publication
from device_api_core.published import Published
from device_api_core.resources import Condition, ConditionStatus, Gpu, GpuSpec, GpuStatus

pytestmark = pytest.mark.once("a publisher is an ordinary consumer: tests/client has their calls")

PROGRAM = str(Path(sys.executable).with_name("device-api"))
GROUP = "device_api.publishers"
SECONDS = 20.0

# What it publishes are the lines of a file.
GOOD = """
import json, threading
from device_api_core.errors import PublishFailed, SettingsError
from device_api_core.plugins import Publisher

class Good(Publisher):
    name = "good"
    contract_version = 1
    interval_seconds = 0.1
    def __init__(self, options): self.options = dict(options)
    def prepare(self):
        if self.options.get("impossible"):
            raise SettingsError("option 'impossible' is what it says")
    def publish(self, gpus, *, stale, count):
        count("calls", kind="all")
        exec(self.options.get("act", ""))
        with open(self.options["file"], "a") as file:
            view = {"gpus": {gpu.name: gpu.ready for gpu in gpus}, "stale": stale}
            file.write(json.dumps(view | {"said": self.options.get("said")}) + "\\n")

@hookimpl
def device_api_publisher(options):
    return Good(options)
"""

BAD = {
    "import-error": ("import missing_module", "ModuleNotFoundError"),
    "no-hook": ("", "no hook device_api_publisher returned a publisher"),
    "typo": ("@hookimpl\ndef device_api_publishre(options): pass", "device_api_publishre"),
    "exits": ("@hookimpl\ndef device_api_publisher(options): sys.exit(3)", "SystemExit"),
    "wrong-type": (
        "@hookimpl\ndef device_api_publisher(options): return 'me'",
        "str has no contract_version: it is not a Publisher",
    ),
    "old": (GOOD.replace("contract_version = 1", "contract_version = 0"), "publisher contract 0"),
    "misnamed": (GOOD, "calls itself 'good' and its entry point 'misnamed'"),
    "no-interval": (GOOD.replace("= 0.1", "= 0").replace('"good"', '"no-interval"'), "positive"),
    "no-publish": (
        GOOD.replace("def publish(", "publish = None\n    def other(").replace(
            '"good"', '"no-publish"'
        ),
        "it has no method publish",
    ),
}


@pytest.fixture
def installed(directory: Path) -> Installed:
    return Installed(directory / "plugins").add("good", GOOD, group=GROUP)


@pytest.fixture
def node(device_api_node: Callable[..., Any]) -> Any:
    """A server with one good GPU."""
    node = device_api_node()
    report(node.clients, ConditionStatus.TRUE)
    return node


def report(clients: Clientset, status: ConditionStatus, gpu: str = "gpu-0") -> None:
    providers = clients.v1alpha1.providers
    providers.register(gpu, GpuSpec(), provider_id="tests")
    fan = Condition("example.com/FanHealthy", status)
    providers.update_status(gpu, GpuStatus((fan,)), provider_id="tests")


class Command:
    """``device-api`` as a process with these plugins; its standard error is read as it comes."""

    def __init__(self, installed: Installed, *arguments: str, **env: str) -> None:
        own = environment({**env, "PYTHONPATH": str(installed.directory)})
        self.process = subprocess.Popen(
            [PROGRAM, *arguments], env=own, stderr=subprocess.PIPE, text=True
        )
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for line in lines:
                with self._changed:
                    self.lines.append(line)
                    self._changed.notify_all()

    @property
    def text(self) -> str:
        return "".join(self.lines)

    def said(self, words: str) -> None:
        with self._changed:
            found = self._changed.wait_for(lambda: words in self.text, SECONDS)
        assert found, f"not said: {words!r}, but {self.text}"

    def ended(self) -> int:
        code = self.process.wait(SECONDS)
        self._reader.join(SECONDS)
        return code

    def stop(self) -> int:
        self.process.terminate()
        return self.ended()


@pytest.fixture
def publish(installed: Installed, directory: Path, node: Any) -> Iterator[Callable[..., Command]]:
    """Starts the good publisher with options from a file."""
    started: list[Command] = []

    def start(*flags: str, server: Path | None = None, table: str = "", **env: str) -> Command:
        file = directory / "server.toml"
        file.write_text(f'[publishers.good]\nfile = "{directory / "published"}"\n{table}\n')
        where = f"--server={server or node.socket}"
        words = (where, "publish", "good", f"--config={file}", *flags)
        started.append(Command(installed, *words, **env))
        return started[-1]

    yield start
    for command in started:
        command.process.kill()
        command.ended()


def published(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "published").read_text().splitlines()]


def device_api(installed: Installed, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = environment({"PYTHONPATH": str(installed.directory)})
    return subprocess.run(
        [PROGRAM, *arguments], capture_output=True, text=True, check=False, timeout=30, env=env
    )


def test_bad_publishers_are_listed_with_their_error(installed: Installed) -> None:
    for name, (source, _) in BAD.items():
        installed.add(name, source, group=GROUP)
    listed = yaml.safe_load(device_api(installed, "publishers", "-o", "yaml").stdout)["publishers"]
    rows = {row["name"]: row for row in listed}
    for name, (_, words) in BAD.items():
        assert rows[name]["state"] == "error"
        assert words in rows[name]["stateReason"], name
    good = {"distribution": "demo_good", "version": "1.2", "entryPoint": "demo_good"}
    assert rows["good"] == {"name": "good", "state": "available", "contractVersion": 1, **good}
    table = device_api(installed, "publishers", "-o", "wide").stdout
    assert "NAME" in table
    assert "demo_good" in table


def test_a_publisher_that_cannot_work_ends_at_once_and_says_why(
    installed: Installed, publish: Callable[..., Command]
) -> None:
    installed.add("typo", BAD["typo"][0], group=GROUP)
    result = device_api(installed, "publish", "typo")
    assert result.returncode == 1
    assert "publisher typo (demo_typo): " in result.stderr
    result = device_api(installed, "publish", "nowhere")
    assert result.returncode == 1
    assert (
        "no publisher 'nowhere' is installed (installed: good, kubernetes, typo)" in result.stderr
    )
    for table, words in (
        ("impossible = true", "option 'impossible' is what it says"),
        ('said = "${NOT_SET}"', "environment variable NOT_SET is not set"),
        ("[nonsense]", "unknown key 'nonsense'"),
        ("[publishers]\ngood = 1", "not valid TOML"),
    ):
        command = publish(table=table)
        assert command.ended() == 1
        assert words in command.text
    command = publish("--metrics-address=9091")
    assert command.ended() == 1
    assert "--metrics-address must be HOST:PORT or :PORT" in command.text


def test_the_whole_truth_is_published_when_it_changes(
    publish: Callable[..., Command], directory: Path, node: Any
) -> None:
    command = publish(table='said = "on ${PLACE}"\n[publishers.other]\nx = "${NOT_SET}"', PLACE="b")
    command.said("published publisher=good gpus=1")
    assert published(directory) == [{"gpus": {"gpu-0": "True"}, "stale": "", "said": "on b"}]
    report(node.clients, ConditionStatus.FALSE)
    wait_until(lambda: published(directory)[-1]["gpus"] == {"gpu-0": "False"})
    report(node.clients, ConditionStatus.FALSE, "gpu-1")
    wait_until(lambda: len(published(directory)[-1]["gpus"]) == 2)
    assert command.stop() == 0
    assert "publisher has stopped" in command.text


@pytest.mark.parametrize(
    ("act", "words", "is_defect"),
    [
        ("raise RuntimeError('no luck')", 'why="no luck"', True),
        ("sys.exit(7)", "why=7", True),
        ("raise PublishFailed('grant it')", 'why="grant it"', False),
    ],
)
def test_a_publisher_that_raises_is_called_again_and_told_of_once(
    publish: Callable[..., Command], directory: Path, act: str, words: str, is_defect: bool
) -> None:
    guard = f"if not os.path.exists('{directory}/mended'): {act}"
    command = publish(table=f'act = "{guard}"')
    command.said(words)
    command.said("next_try_seconds=")
    (directory / "mended").touch()
    command.said("published publisher=good")
    assert ("Traceback" in command.text) is is_defect
    assert command.text.count("publishing failed") == 1
    assert command.stop() == 0


def test_a_server_that_is_not_there_yet_is_waited_for(
    publish: Callable[..., Command], directory: Path, node: Any
) -> None:
    link = directory / "later.sock"
    publish(server=link)
    link.symlink_to(node.socket)
    wait_until(lambda: (directory / "published").exists() and published(directory))
    assert published(directory)[0]["stale"] == ""


def test_the_publisher_of_the_documentation_works(
    installed: Installed, directory: Path, node: Any
) -> None:
    page = Path(__file__).parents[2] / "docs" / "publishers.md"
    [source] = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    installed.add("pager", source, group=GROUP)
    config = directory / "pager.toml"
    config.write_text(f'[publishers.pager]\nfile = "{directory}/gpus.txt"\n')
    words = (f"--server={node.socket}", "publish", "pager", f"--config={config}", "--once")
    result = device_api(installed, *words)
    assert result.returncode == 0, result.stderr
    assert (directory / "gpus.txt").read_text() == "bad: [], as of now: True\n"
    (directory / "gpus.txt").unlink()
    (directory / "gpus.txt").mkdir()
    result = device_api(installed, *words)
    assert result.returncode == 1
    assert f"error: cannot write {directory}/gpus.txt: Is a directory" in result.stderr
    config.write_text('[publishers.pager]\nfile = "/nowhere/gpus.txt"\n')
    result = device_api(installed, *words)
    assert result.returncode == 1
    assert "there is no folder /nowhere: make it" in result.stderr


def test_one_file_serves_the_server_and_its_publisher(
    installed: Installed, start: Callable[..., Any], directory: Path
) -> None:
    config = directory / "both.toml"
    config.write_text('verbosity = 1\n[publishers.good]\nfile = "${NOT_SET_HERE}"\n')
    server = start(f"--config={config}").wait_serving()
    assert server.stop() == 0


class Hanging(Publisher):
    name = "hanging"
    contract_version = 1
    interval_seconds = 1.0

    def __init__(self) -> None:
        self.called = threading.Event()
        self.release = threading.Event()

    def prepare(self) -> None:
        """Nothing to do."""

    def publish(self, gpus: Any, *, stale: str, count: Count) -> None:
        self.called.set()
        assert all(isinstance(gpu, Gpu) for gpu in gpus)
        self.release.wait(SECONDS)


def test_a_call_that_hangs_is_told_and_ends_the_process(node: Any) -> None:
    hanging = Hanging()
    publication = Publication(hanging, node.clients, Published("hanging"), hung_seconds=2.0)
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(publication.run()))
    thread.start()
    assert hanging.called.wait(SECONDS)
    assert publication.trouble == ""
    wait_until(lambda: "has not returned for" in publication.trouble)
    thread.join(SECONDS)
    assert codes == [HUNG]
    hanging.release.set()


def wait_until(holds: Callable[[], object]) -> None:
    event = threading.Event()
    for _ in range(round(SECONDS / 0.05)):
        if holds():
            return
        event.wait(0.05)
    raise AssertionError("it never was so")
