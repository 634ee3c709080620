"""Runs storms: ``python tests/chaos/soak.py --seed 7 --seconds 60 --transport h2``. A seed gives
the same faults and the same writes; how they meet is up to the machine."""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "support"))
sys.path.insert(0, str(Path(__file__).parents[1] / "integration" / "support"))


def main() -> int:
    """Exit code 1 if a promise was broken."""
    from storm import storm

    parser = argparse.ArgumentParser(description="Kill, stop and slow everything; judge what was.")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--transport", default=os.environ.get("DEVICE_API_TRANSPORT") or "grpcio")
    parser.add_argument("--records", type=Path, help="keep what was recorded in this empty folder")
    given = parser.parse_args()
    again = f"make chaos SEED={given.seed} SECONDS={given.seconds:g} TRANSPORT={given.transport}"
    print(f"once more: {again}", flush=True)
    with tempfile.TemporaryDirectory(prefix="dapi-records-") as temporary:
        records = given.records or Path(temporary)
        records.mkdir(exist_ok=True, parents=True)
        if any(records.iterdir()):
            parser.error(f"--records: {records} is not empty")
        outcome = storm(given.seed, given.seconds, given.transport, records, _tell)
    print(outcome)
    for violation in outcome.found[:20]:
        print(f"  {violation}")
    return 1 if outcome.found else 0


def _tell(progress: str) -> None:
    print(progress, flush=True)


if __name__ == "__main__":
    sys.exit(main())
