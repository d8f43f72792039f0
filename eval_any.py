"""Scores the general network on your own labelled photographs, on DRIVE and on CHASE DB1.

    python eval_any.py mine.csv      half a minute for 20 photographs on two cores, 2 GB of memory
    python eval_any.py DRIVE CHASEDB1
    python eval_any.py mine.csv --weights runs/any-mine-rsan-0
    python eval_any.py mine.csv --maps folder

mine.csv has a line for each photograph: image,label and, where there are any, fov,second,split (see data/README.md);
scored is what it calls test, or all where it has no splits. Takes weights/any_rsan.weights.h5 unless told otherwise, or
the probability maps that another program has left in a folder. Weights that have learned from the photographs are
refused. Writes results/mine/any_rsan/: metrics.json, table.md, curves, panels, probability maps and a page of them.
"""

import sys

from vessels.data.mixture import Mixture
from vessels.evaluation import main


def network():
    from rsan_model import build_rsan, load_weights

    return build_rsan, load_weights


if __name__ == "__main__":
    sys.exit(main(Mixture(), network, __doc__))
