"""The bill of materials of a root file system, in CycloneDX: image/sbom.py ROOT VARIANT VERSION

Python distributions and Debian packages, with versions, licences as declared, and hashes of the
files that pip recorded. The same root gives the same text.
"""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from email import message_from_string
from importlib.metadata import distributions
from pathlib import Path

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

NAMESPACE = uuid.UUID("9ab5b0a4-6d26-4c8c-9d5f-2f0e7d0a3c51")


def python_components(root: Path) -> Iterator[Component]:
    site = root / "usr/local/lib/python3.11/dist-packages"
    for found in distributions(path=[str(site)]):
        name = found.metadata["Name"]
        declared = found.metadata.get("License-Expression") or found.metadata.get("License") or ""
        # Some put the whole text there.
        licence = declared.splitlines()[0] if declared.strip() else ""
        url = PackageURL("pypi", None, name.lower(), found.version)
        yield component(name, found.version, url, licence)


def debian_components(root: Path) -> Iterator[Component]:
    for control in sorted((root / "var/lib/dpkg/status.d").iterdir()):
        fields = message_from_string(control.read_text(encoding="utf-8"))
        name, version = fields["Package"], fields["Version"]
        qualifiers = {"arch": fields["Architecture"], "distro": "debian-12"}
        yield component(name, version, PackageURL("deb", "debian", name, version, qualifiers), "")


def component(name: str, version: str, url: PackageURL, licence: str) -> Component:
    return Component(
        name=name,
        version=version,
        purl=url,
        bom_ref=url.to_string(),
        type=ComponentType.LIBRARY,
        licenses=[DisjunctiveLicense(name=licence)] if licence else [],
    )


def main(root: Path, variant: str, version: str) -> str:
    found = [*python_components(root), *debian_components(root)]
    bom = Bom(components=found)
    bom.metadata.timestamp = datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), UTC)
    bom.metadata.component = Component(
        name=f"device-api-server ({variant})",
        version=version,
        type=ComponentType.CONTAINER,
        bom_ref="device-api-server",
    )
    refs = "\n".join(sorted(str(each.bom_ref) for each in found))
    bom.serial_number = uuid.uuid5(NAMESPACE, f"{variant} {version}\n{refs}")
    bom.register_dependency(bom.metadata.component, found)
    return JsonV1Dot6(bom).output_as_string(indent=1)


if __name__ == "__main__":
    sys.stdout.write(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]) + "\n")
