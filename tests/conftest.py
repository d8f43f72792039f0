import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

# The golden gradients are compared at the last digits: with several threads, sums are rounded in another order,
# and a ReLU whose input is zero but for rounding flips, which moves single gradients by 3e-5.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

import vessels  # noqa: E402, F401  (chooses TensorFlow's settings before anything imports it)


@pytest.fixture
def data_root():
    """Folder that holds DRIVE and CHASEDB1; tests on real images are skipped where there is none."""
    root = Path(os.environ.get("RSAN_DATA_ROOT", ROOT / "data"))
    if not (root / "DRIVE").is_dir() or not (root / "CHASEDB1").is_dir():
        pytest.skip("needs DRIVE and CHASEDB1 in data/ or $RSAN_DATA_ROOT")
    return root
