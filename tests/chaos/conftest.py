"""Where the storm, its judge and the real server's process are."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "integration" / "support"))
sys.path.insert(0, str(Path(__file__).parent / "support"))
