"""Trains RSAN on CHASE DB1.

    python train_chase.py            60 to 90 minutes on two cores, 2 GB of memory
    python eval_chase.py runs/chase-rsan-0/final.weights.h5

Expect a validation AUC of about 0.99 inside the field of view (images 09R and 10L).
Without the data, `--synthetic` trains on procedural images in a minute.
"""

import sys

from vessels.data import published
from vessels.training.config import Recipe, main

RECIPE = Recipe(network="rsan_model", epochs=60, steps_per_epoch=150, batch_size=4, patch_size=160, keep_prob=0.92)
AUTHORS = {"epochs": 150, "batch_size": 1, "learning_rate": 1e-3, "vessel_weight": 1.0, "keep_prob": 0.78}


if __name__ == "__main__":
    sys.exit(main(published.CHASEDB1, RECIPE, AUTHORS, __doc__))
