"""Makes `rendering` importable."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "support"))

import importlib.util

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture
def load_tool():
    """Loads a program of `tools/` as a module."""

    def load(name):
        spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load
