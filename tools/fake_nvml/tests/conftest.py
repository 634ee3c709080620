from __future__ import annotations

import ctypes
import subprocess
import sys

import pynvml
import pytest
from device_api_fake_nvml import FakeNode


@pytest.fixture
def node(tmp_path):
    with FakeNode.create(tmp_path / "node") as node:
        yield node


@pytest.fixture
def attach():
    """Points the real pynvml at a node, and initialises it."""

    def attach(node):
        pynvml.nvmlLib = ctypes.CDLL(str(node.library))
        pynvml._nvmlGetFunctionPointer_cache.clear()
        pynvml.nvmlInit()
        return pynvml

    yield attach
    pynvml.nvmlLib = None
    pynvml._nvmlGetFunctionPointer_cache.clear()


@pytest.fixture
def nvml(node, attach):
    return attach(node)


@pytest.fixture
def spawn():
    """Starts Python with LD_LIBRARY_PATH set to the node's library, as a real client would."""
    started = []

    def spawn(node, code):
        process = subprocess.Popen(
            [sys.executable, "-c", f"from pynvml import *\n{code}"],
            env=node.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield spawn
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def error_of():
    """The number of the NVML error that a call raises, 0 for none."""

    def error_of(function, *arguments):
        try:
            function(*arguments)
        except pynvml.NVMLError as error:
            return error.value
        return 0

    return error_of
