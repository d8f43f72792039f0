"""Scores RSAN on the 20 test images of DRIVE and prints the paper's table.

    python eval_drive.py             half a minute on two cores, 2 GB of memory

Takes weights/drive_rsan.weights.h5; `--weights runs/drive-rsan-0/best.weights.h5` takes your own.
Writes results/DRIVE/rsan/: metrics.json, table.md, curves, panels and probability maps.
"""

import sys

from vessels.data import datasets
from vessels.evaluation import main

from rsan_model import build_rsan, load_weights

if __name__ == "__main__":
    sys.exit(main(datasets.DRIVE, build_rsan, load_weights, __doc__))
