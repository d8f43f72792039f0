"""Trains RSAN on DRIVE.

    python train_drive.py            60 to 90 minutes on two cores, 2 GB of memory
    python eval_drive.py runs/drive-rsan-0/final.weights.h5

Expect a validation AUC of about 0.98 inside the field of view (images 23 and 40).
Without the data, `--synthetic` trains on procedural images in a minute.
"""

import sys

from vessels.data import published
from vessels.training.config import Recipe, main

RECIPE = Recipe(network="rsan_model", epochs=60, steps_per_epoch=200, batch_size=4, patch_size=128, keep_prob=0.92)
AUTHORS = {"epochs": 150, "batch_size": 2, "learning_rate": 1e-3, "vessel_weight": 1.0, "keep_prob": 0.85}


if __name__ == "__main__":
    sys.exit(main(published.DRIVE, RECIPE, AUTHORS, __doc__))
