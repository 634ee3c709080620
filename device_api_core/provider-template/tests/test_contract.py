"""The contract that every provider keeps, in both homes, with a source that can be broken."""

from device_api_core.testing import provider_contract

TestContract = provider_contract(
    "template",
    options=lambda directory: {"file": str(directory / "state")},
    well=lambda directory: (directory / "state").write_text("ok"),
    broken=lambda directory: (directory / "state").write_text("on fire"),
)
