"""Scores RSAN on the 8 test images of CHASE DB1 and prints the paper's table.

    python eval_chase.py             half a minute on two cores, 2 GB of memory

Takes weights/chase_rsan.weights.h5; others are named: `python eval_chase.py runs/chase-rsan-0/best.weights.h5`,
or all of a folder: `python eval_chase.py weights`. What network they are of, and whether they learned from CHASE DB1,
says the JSON beside them. Writes results/CHASEDB1/rsan/: metrics.json, table.md, curves, panels, probability maps.
"""

import sys

from vessels.data import datasets
from vessels.evaluation import main


def network():
    from rsan_model import build_rsan, load_weights

    return build_rsan, load_weights


if __name__ == "__main__":
    sys.exit(main(datasets.CHASEDB1, network, __doc__))
