"""Makes `tests.support` importable under pytest's importlib mode, which leaves sys.path alone."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
