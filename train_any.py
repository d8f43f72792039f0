"""Trains the general network, for photographs from any camera, on DRIVE and CHASE DB1, or on your own photographs.

    python train_any.py              three hours on two cores with AMX, 3 GB of memory
    python train_any.py --seed 1
    python train_any.py mine.csv DRIVE CHASEDB1
    python train_any.py mine.csv --start weights/any_rsan.weights.h5 --epochs 10 --learning-rate 5e-4 \\
        --output-dir runs/mine
    python eval_any.py DRIVE CHASEDB1 --weights runs/any-rsan-0

mine.csv has a line for each photograph: image,label and, if available, fov,second,split (see data/README.md).
Expect a validation AUC of about 0.985 inside the field of view (images 23 and 40, 09R and 10L).
On a processor without AVX512-BF16 or AMX, add --no-mixed-precision.
Without the data, `--synthetic` trains on procedural images in two minutes.
"""

import sys

from vessels.data.sources import Several
from vessels.training.config import Recipe, main

RECIPE = Recipe(network="rsan_model", recipe="any", epochs=105, second_cycle=0.43, steps_per_epoch=130, batch_size=4,
                patch_size=256, keep_prob=0.96, mixed_precision=True)


if __name__ == "__main__":
    sys.exit(main(Several(), RECIPE, {}, __doc__))
