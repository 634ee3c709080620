"""Makes `pods`, and the chart's `rendering`, importable."""

import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
for support in (TESTS / "image" / "support", TESTS / "chart" / "support"):
    sys.path.insert(0, str(support))
