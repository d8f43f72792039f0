"""Scores RSAN on the 8 test images of CHASE DB1 and prints the paper's table.

    python eval_chase.py             half a minute on two cores, 2 GB of memory

Scores weights/chase_rsan.weights.h5 by default. To score others, name a file,
`python eval_chase.py runs/chase-rsan-0/final.weights.h5`, or a whole folder, `python eval_chase.py weights`. The JSON
beside each weights file says which network it belongs to and which data set it was trained on.

Writes results/CHASEDB1/rsan/: metrics.json, table.md, curves, panels, probability maps.
"""

import sys

from vessels.data import published
from vessels.evaluation import main

if __name__ == "__main__":
    sys.exit(main(published.CHASEDB1, "rsan_model", __doc__))
