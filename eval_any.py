"""Scores the general network on your own labelled photographs, on DRIVE and on CHASE DB1.

    python eval_any.py mine.csv      two minutes for 20 photographs on two cores, 4.5 GB of memory
    python eval_any.py DRIVE CHASEDB1
    python eval_any.py mine.csv --weights runs/mine
    python eval_any.py mine.csv --maps folder

mine.csv has a line for each photograph: image,label and, if available, fov,second,split (see data/README.md). Its test
photographs are scored, or all of them if it has no column split. --weights replaces weights/any_rsan.weights.h5; --maps
scores probability maps that another program has written to a folder. Weights that were trained on any of the
photographs are refused. Writes results/mine/any_rsan/: metrics.json, table.md, curves, panels, probability maps.
"""

import sys

from vessels.data.sources import Several
from vessels.evaluation import main

if __name__ == "__main__":
    sys.exit(main(Several(), "rsan_model", __doc__))
