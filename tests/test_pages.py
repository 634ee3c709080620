"""What the pages tell people to type works, and prints what they say."""

from __future__ import annotations

import ast
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "support"))

from checkout import SECONDS, Checkout, Shell
from commandline import running_server
from pages import ROOT, Block, blocks, missing

from device_api_core.client import Clientset
from device_api_core.resources import Condition, ConditionStatus, GpuSpec, GpuStatus

TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN
REFERENCE = ROOT / "docs" / "api" / "reference"
PAGES = [
    *(page for page in sorted(ROOT.glob("docs/**/*.md")) if page.parent != REFERENCE),
    *sorted(ROOT.glob("*.md")),
    ROOT / "charts/device-api-server/README.md",
    ROOT / "tools/fake_nvml/README.md",
    *sorted(ROOT.glob("providers/*/README.md")),
    ROOT / "publishers/kubernetes/README.md",
    ROOT / "transports/h2/README.md",
]
RUN = [page for page in PAGES if any(block.verdict == "run" for block in blocks(page))]

BROKEN = 7
"""The GPU that is sick on the node that pages share."""

# A page about one node in particular, with the GPUs that its output shows.
OWN_NODE = ("README.md", "docs/tour.md")

# Servers that a page starts. They must not take the place of the one that runs, nor a fixed port.
SERVER = re.compile(r"^(device-api-server (?!--version|--help)|device-api provider run )", re.M)
PRELUDE = r"""
set +o pipefail
background() {
  : >own.log
  env DEVICE_API_GRPC_ADDRESS=127.0.0.1:0 DEVICE_API_HEALTH_PORT=0 DEVICE_API_METRICS_PORT=0 \
    DEVICE_API_UNIX_SOCKET="$PWD/own/device.sock" DEVICE_API_SHUTDOWN_DELAY=0 \
    DEVICE_API_PROVIDER_SOCKET="$PWD/own/provider/provider.sock" \
    DEVICE_API_CONFIG="$PWD/own/server.toml" "$@" >>own.log 2>&1 &
  started+=($!)
  until grep -qE ' serving | provider is running ' own.log; do
    kill -0 $! 2>/dev/null || { cat own.log; return 1; }
    sleep 0.05
  done
}
started=()
finish() {
  for process in "${started[@]}"; do kill -TERM "$process"; wait "$process"; done
}
mkdir -p own/provider
printf '[providers.nvsentinel]\nsocket = "%s"\n' "$PWD/own/bridge.sock" >own/server.toml
# So that NVML is found as on a node with a driver.
export LD_LIBRARY_PATH=$PWD/.run/node/usr/lib64
"""


class Node:
    """Where commands are run: a directory, a shell's beginning, and what stands for what."""

    def __init__(self, path: Path, prelude: str, words: dict[str, str]) -> None:
        self.path = path
        self._prelude = prelude
        self._meanings = words
        words_of_a_line = "|".join(map(re.escape, sorted(words, key=len, reverse=True)))
        self._words = re.compile(rf"(?<![\w-])(?:{words_of_a_line or '(?!)'})(?![\w-])")
        self.shells: list[Shell] = []
        self._ran: set[str] = set()

    def not_yet_run(self, command: str) -> str:
        """The lines of a command that were not in one before."""
        fresh = [line for line in command.splitlines() if line not in self._ran]
        self._ran.update(fresh)
        return "\n".join(fresh)

    def run(self, command: str) -> Shell:
        command = self._words.sub(lambda word: self._meanings[word[0]], command)
        self.shells.append(Shell(f"{self._prelude}\n{command}", self.path))
        return self.shells[-1]

    def meanwhile(self) -> None:
        """What happens while a command runs that shows changes."""

    def close(self) -> None:
        for shell in self.shells:
            shell.close()


@contextmanager
def simulated_node(*flags: str) -> Iterator[tuple[Checkout, Node]]:
    # Not pytest's tmp_path: a socket's path may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="clone-") as path:
        bridge = Path(path) / "bridge.toml"
        bridge.write_text(f'[providers.nvsentinel]\nsocket = "{path}/bridge.sock"\n')
        checkout = Checkout(Path(path), f"--config={bridge}", *flags)
        try:
            checkout.wait_ready()
            (checkout.path / "providers").symlink_to(ROOT / "providers")
            node = Node(
                checkout.path,
                f"source .run/env\n{PRELUDE}",
                {
                    "unix:///var/run/device-api/device.sock": f"unix://{path}/.run/device.sock",
                    "/var/run/device-api-provider/provider.sock": f"{path}/.run/provider.sock",
                    "/var/run/device-api-nvsentinel/bridge.sock": f"{path}/bridge.sock",
                    "localhost:50051": checkout.address("tcp"),
                    "127.0.0.1:8081": checkout.address("health"),
                    "127.0.0.1:9090": checkout.address("metrics"),
                    "GPU": checkout.uuid(BROKEN).lower(),
                    "PROVIDER": "nvml",
                    "STATE_DIR": f"{path}/.run/state",
                    # It runs already.
                    "make serve": "true",
                },
            )
            yield checkout, node
            node.close()
        finally:
            checkout.stop()


@pytest.fixture(scope="module")
def shared_node() -> Iterator[Node]:
    with simulated_node("--provider=nvsentinel") as (checkout, node):
        assert node.run(f'fake-nvml xid "$FAKE_NVML_NODE" --gpu {BROKEN} 79').ends() == 0
        with checkout.clients as clients:
            name = checkout.uuid(BROKEN).lower()
            clients.v1alpha1.gpus.wait_for(name, lambda gpu: gpu.ready == "False")
        yield node


A, B, C, D = (
    "gpu-1b2c77e0-58f2-4ac3-9d5b-0f6a1c2d3e40",
    "gpu-5f3a90c1-0f2e-4f7b-8a64-7be2d19c5a11",
    "gpu-8d0417bb-93aa-4c0e-b1c7-2a54e6f0d922",
    "gpu-c4e6d2f8-7b13-4e59-a0d4-91c3b8e7f633",
)


@contextmanager
def node_of_the_command_line() -> Iterator[Node]:
    """Four GPUs, of which one is sick and nobody vouches for another."""
    with (
        tempfile.TemporaryDirectory(prefix="node-") as path,
        running_server(Path(path)),
        Clientset.connect(f"{path}/provider.sock") as clients,
    ):
        providers = clients.v1alpha1.providers
        for name in (A, B, C, D):
            for owner, kind in (("nvml", "XidHealthy"), ("dcgm", "DCGMHealth")):
                providers.register(name, GpuSpec(uuid=name.upper()), provider_id=owner)
                status = GpuStatus((Condition(kind, TRUE),))
                providers.update_status(name, status, provider_id=owner)
        providers.update_condition(
            B,
            Condition("DCGMHealth", UNKNOWN, "NoAnswer", "DCGM does not answer"),
            provider_id="dcgm",
        )
        providers.update_condition(
            C,
            Condition("XidHealthy", FALSE, "Xid79", "the GPU fell off the bus"),
            provider_id="nvml",
            recommended_action="RESTART_BM",
        )
        prelude = [
            f"export NVIDIA_DEVICE_API={path}/device.sock PATH={Path(sys.executable).parent}:$PATH",
            # To a pipe it would write only when it has much.
            'jq() { command jq --unbuffered "$@"; }',
        ]
        node = Node(Path(path), "\n".join(prelude), {})

        def flap() -> None:
            for condition in (
                Condition("XidHealthy", FALSE, "Xid48"),
                Condition("XidHealthy", TRUE),
            ):
                providers.update_condition(A, condition, provider_id="nvml")

        node.meanwhile = flap
        yield node
        node.close()


@pytest.fixture
def node(page: Path, request: pytest.FixtureRequest) -> Iterator[Node]:
    name = str(page.relative_to(ROOT))
    if name == "transports/h2/README.md" and not os.environ.get("CI"):
        pytest.importorskip("device_api_transport_h2._engine", exc_type=ImportError)
    if name == "docs/command-line.md":
        with node_of_the_command_line() as own:
            yield own
    elif name in OWN_NODE:
        with simulated_node() as (_, own):
            yield own
    else:
        shared = request.getfixturevalue("shared_node")
        # Several pages make a node of their own there.
        shutil.rmtree(shared.path / "node", ignore_errors=True)
        yield shared


def by_page(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=by_page)
def test_every_block_says_who_runs_it(page):
    for block in blocks(page):
        assert block.verdict, f"{block}: put <!-- run --> above it; see tests/support/pages.py"
        if block.verdict != "run":
            assert block.rest, f"{block}: say by whom it is tested, or why nobody runs it"
        if block.verdict == "tested by":
            assert (ROOT / block.rest.split(" ")[0]).is_file(), f"{block}: {block.rest} is no file"
        if block.language == "python":
            ast.parse(block.text)


@pytest.mark.timeout(4 * SECONDS)
@pytest.mark.parametrize("page", RUN, ids=by_page)
def test_a_page_does_what_it_says(page: Path, node: Node) -> None:
    going_on: list[tuple[Block, Shell, list[str]]] = []
    for block in blocks(page):
        if block.verdict != "run":
            continue
        for command, expected in block.commands:
            if page.parent.name == "runbooks":  # They look at the same things.
                command = node.not_yet_run(command)
            shell = node.run(runnable(block, command))
            if "to the end" in block.options:
                going_on.append((block, shell, expected))
                wait_for(block, shell, expected[:1], node.meanwhile)
            else:
                ends(block, shell, expected)
    for block, shell, expected in going_on:
        wait_for(block, shell, expected, node.meanwhile)
        shell.interrupt()


def runnable(block: Block, command: str) -> str:
    if block.language == "python":
        return f"python - <<'END'\n{command}\nEND"
    if SERVER.search(command):
        return SERVER.sub(r"background \1", command) + "\nfinish"
    return command


def ends(block: Block, shell: Shell, expected: list[str]) -> None:
    code = shell.ends()
    wanted = int(next(iter(block.option("exits")), 0))
    assert code == wanted, f"{block} ends with {code}:\n{shell.output}"
    lost = missing(expected, shell.output)
    assert not lost, f"{block} does not print\n{lost}\nbut\n{shell.output}"


def wait_for(
    block: Block, shell: Shell, expected: list[str], meanwhile: Callable[[], None]
) -> None:
    """Wait until what goes on has printed its lines."""
    for _ in range(int(SECONDS / 0.5)):
        if shell.wait_for(lambda output: not missing(expected, output), 0.5):
            return
        meanwhile()
    pytest.fail(f"{block} does not print\n{missing(expected, shell.output)}\nbut\n{shell.output}")
