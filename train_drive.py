"""Trains RSAN on DRIVE.

    python train_drive.py
"""

import sys

from vessels import datasets
from vessels.training import Recipe, main

from rsan_model import build_rsan

RECIPE = Recipe(epochs=24, batch_size=16, patch_size=128, keep_prob=0.88)
AUTHORS = {"epochs": 150, "batch_size": 2, "learning_rate": 1e-3, "keep_prob": 0.85}

if __name__ == "__main__":
    sys.exit(main(datasets.DRIVE, build_rsan, RECIPE, AUTHORS, __doc__))
