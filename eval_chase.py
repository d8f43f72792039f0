"""Scores RSAN on the 8 test images of CHASE DB1 and prints the paper's table.

    python eval_chase.py             half a minute on two cores, 2 GB of memory

Takes weights/chase_rsan.weights.h5; `--weights runs/chase-rsan-0/best.weights.h5` takes your own.
Writes results/CHASEDB1/rsan/: metrics.json, table.md, curves, panels and probability maps.
"""

import sys

from vessels.data import datasets
from vessels.evaluation import main

from rsan_model import build_rsan, load_weights

if __name__ == "__main__":
    sys.exit(main(datasets.CHASEDB1, build_rsan, load_weights, __doc__))
