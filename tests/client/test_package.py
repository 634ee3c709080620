"""The package: what it loads, and that its page tells the truth."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from device_api_core import client
from device_api_core.client import errors, fake
from device_api_core.client.fake import FakeServer, gpu

pytestmark = pytest.mark.once("it is about the fake server")

PAGE = (Path(__file__).parents[2] / "docs" / "client.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_importing_the_client_loads_neither_the_server_nor_what_was_not_asked_for():
    code = "import sys, device_api_core.client; print('\\n'.join(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(found.stdout.split())
    assert "device_api_core.client.clientset" in loaded
    ours = {m for m in loaded if m.startswith("device_api_core.")}
    parts = {".".join(m.split(".")[1:3]) for m in ours}
    assert not parts & {"client.aio", "client.fake", "server", "daemon", "cache", "watch"}
    assert not loaded & {"grpc._server", "pluggy", "prometheus_client", "click", "yaml"}


@pytest.mark.parametrize("name", client.__all__)
def test_every_name_that_is_offered_is_there(name):
    assert getattr(client, name)


def test_so_with_the_fakes():
    assert all(getattr(fake, name) for name in fake.__all__)
    for module in (client, fake):
        with pytest.raises(AttributeError):
            module.nothing  # noqa: B018


@pytest.mark.parametrize("example", EXAMPLES, ids=[e.splitlines()[-1] for e in EXAMPLES])
def test_every_example_of_the_page_runs(example, directory, monkeypatch, capsys):
    healthy = gpu("gpu-a", uuid="GPU-A")
    with FakeServer(f"unix://{directory}/fake.sock", healthy) as server:
        monkeypatch.setenv("NVIDIA_DEVICE_API", server.target)
        names: dict[str, object] = {}
        exec(compile(example, "docs/client.md", "exec"), names)
        for name, test in names.items():
            if name.startswith("test_"):
                test()
    printed = capsys.readouterr().out
    if "usable" in example:
        assert "gpu-a usable" in printed
    if "asyncio.run" in example:
        assert printed == "gpu-a True\n"


@pytest.mark.parametrize("name", sorted(set(errors.__all__) - {"from_status", "DeviceApiError"}))
def test_every_error_is_in_the_table(name):
    assert re.search(rf"^\| `{name}`", PAGE, re.MULTILINE)
