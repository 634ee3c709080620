"""Every target holds for its corpus, where what fuzzing has found stays, and for any bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from targets import TARGETS

CORPUS = Path(__file__).with_name("corpus")


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_breaks_nothing(name: str) -> None:
    inputs = sorted((CORPUS / name).iterdir())
    assert inputs
    for each in inputs:
        TARGETS[name](each.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_no_bytes_break_anything(name: str) -> None:
    @settings(max_examples=40)
    @given(st.binary(max_size=400))
    def holds(data: bytes) -> None:
        TARGETS[name](data)

    holds()


def test_there_is_a_corpus_of_targets_only() -> None:
    assert {folder.name for folder in CORPUS.iterdir()} == set(TARGETS)
