"""Scores RSAN on the test images of DRIVE.

    python eval_drive.py
"""

import sys

from vessels import datasets
from vessels.evaluation import main

from rsan_model import build_rsan, load_weights

if __name__ == "__main__":
    sys.exit(main(datasets.DRIVE, build_rsan, load_weights, __doc__))
