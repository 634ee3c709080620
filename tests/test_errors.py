"""Errors know what they become on the wire."""

from __future__ import annotations

import grpc
import pytest

from device_api_core import errors
from device_api_core.errors import DeviceApiError, InvalidArgument, LimitExceeded

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, DeviceApiError)
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
def test_every_error_has_a_status_and_a_place_in_the_tree(kind):
    assert kind.code in grpc.StatusCode.__members__
    assert kind.__name__ in errors.__doc__


def test_a_wrong_argument_names_field_and_rule():
    error = InvalidArgument("spec.uuid", "must not be empty")
    assert (error.field, error.rule) == ("spec.uuid", "must not be empty")
    assert str(error) == error.message == "spec.uuid: must not be empty"


def test_a_reason_tells_two_errors_of_one_status_apart():
    assert LimitExceeded("full").reason == ""
    assert LimitExceeded("full", reason="size").reason == "size"
