"""What the tests share is in `support`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "support"))

from collections.abc import Iterator

import pytest
from kube_api import KubeApi


@pytest.fixture
def api(tmp_path: Path) -> Iterator[KubeApi]:
    """An API server with one Node."""
    with KubeApi(tmp_path).running() as running:
        yield running
