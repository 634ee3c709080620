"""What NVIDIA's container runtime does for the simulated driver: it is runc, which first gives the
driver's library to a container that asks for GPUs.

Run as ``nvidia_runtime.py RUNC LIBRARIES RUNC'S-ARGUMENTS...``.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

# The loader looks there. Simulated GPUs keep their state beside the library, and calls write to it.
PLACE = Path("/usr/lib")
FILES = ("libnvidia-ml.so.1", "fake-nvml.state")


def give_driver(config_file: Path, libraries: Path) -> None:
    """Add the mounts to a bundle's configuration, if its process asks for GPUs."""
    config = json.loads(config_file.read_text(encoding="utf-8"))
    if not any(each.startswith("NVIDIA_VISIBLE_DEVICES=") for each in config["process"]["env"]):
        return
    config["mounts"] += [
        {
            "type": "bind",
            "source": str(libraries / name),
            "destination": str(PLACE / name),
            "options": ["bind", "rprivate"],
        }
        for name in FILES
    ]
    config_file.write_text(json.dumps(config), encoding="utf-8")


def main() -> None:
    runc, libraries, *arguments = sys.argv[1:]
    if "create" in arguments:
        bundle = Path(arguments[arguments.index("--bundle") + 1])
        give_driver(bundle / "config.json", Path(libraries))
    os.execv(runc, [runc, *arguments])


if __name__ == "__main__":
    main()
