import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

# The golden gradients are compared to the last digits. With several threads, sums are rounded in another order,
# and a ReLU with an input near zero may switch, which changes single gradients by 3e-5.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

import vessels  # noqa: E402, F401  (sets what TensorFlow reads on import)


@pytest.fixture
def data_root():
    """Folder that holds DRIVE and CHASEDB1; tests on real images are skipped without it."""
    root = Path(os.environ.get("RSAN_DATA_ROOT", ROOT / "data"))
    if not (root / "DRIVE").is_dir() or not (root / "CHASEDB1").is_dir():
        pytest.skip("needs DRIVE and CHASEDB1 in data/ or $RSAN_DATA_ROOT")
    return root


def pytest_collection_modifyitems(items):
    """Puts the files with the longest tests first, so that no core is idle at the end."""
    longest = ("test_tutorial", "test_interruptions", "test_backends", "test_systems", "test_distribution")
    items.sort(key=lambda item: item.path.stem not in longest)
