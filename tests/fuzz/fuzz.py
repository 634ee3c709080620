"""Fuzzes the parsers and the services, guided by coverage: ``python tests/fuzz/fuzz.py --seconds
60 --target rpc``. What it finds is kept in ``.run/fuzz``, and told with what repeats it."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CORPUS = HERE / "corpus"
_FLAGS = ("-timeout=20", "-rss_limit_mb=2048")
sys.path.insert(0, str(HERE / "support"))


def main() -> int:
    """Exit code 1 if a target failed."""
    parser = argparse.ArgumentParser(description="Fuzz what takes bytes from others.")
    parser.add_argument("--seconds", type=float, default=60.0, help="in all")
    parser.add_argument("--target", help="only this one")
    parser.add_argument("--input", type=Path, help="give the target this file, and no more")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given, flags = parser.parse_known_args()
    if given.inside:
        return _inside(given.target, flags)
    if flags:
        parser.error(f"unrecognized arguments: {' '.join(flags)}")
    if importlib.util.find_spec("atheris") is None and not given.input:
        parser.error("there is no atheris for this platform; tests/fuzz/test_targets.py needs none")
    from targets import TARGETS

    names = [given.target] if given.target else list(TARGETS)
    if given.input:
        TARGETS[given.target](given.input.read_bytes())
        return 0
    each = max(1, round(given.seconds / len(names)))
    return max([_run(name, each) for name in names])


def _run(name: str, seconds: int) -> int:
    work = ROOT / ".run" / "fuzz" / name
    work.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, __file__, "--inside", "--target", name]
    longest = max(2_048, *(path.stat().st_size for path in (CORPUS / name).iterdir()))
    flags = [f"-max_total_time={seconds}", f"-max_len={longest}", *_FLAGS]
    folders = [str(work), str(CORPUS / name)]
    kept = f"-artifact_prefix={work.parent}/{name}-"
    ended = subprocess.run([*command, *flags, kept, *folders], capture_output=True, text=True)
    said = ended.stderr + ended.stdout
    done = re.search(r"Done (\d+) runs", said)
    reached = re.findall(r"cov: (\d+) ft: (\d+)", said)
    print(
        f"{name:18} {int(done[1]) if done else 0:>10,} inputs, "
        f"{reached[-1][0] if reached else 0:>5} places reached",
        flush=True,
    )
    if ended.returncode == 0 and done:
        return 0
    print(said.partition("=== Uncaught")[2][:4_000] or said[-4_000:])
    print(f"once more: .venv/bin/python tests/fuzz/fuzz.py --target {name} --input FILE")
    return 1


def _inside(name: str, flags: list[str]) -> int:
    import atheris

    packages = ["device_api_core", "device_api_dcgm", "device_api_nvsentinel_bridge"]
    with atheris.instrument_imports(include=[*packages, "device_api_transport_h2"]):
        from targets import TARGETS
    logging.disable()  # what services say of each input
    atheris.Setup([sys.argv[0], *flags], TARGETS[name])
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
