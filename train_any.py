"""Trains the general network, for photographs from any camera, on DRIVE and CHASE DB1, or on your own photographs.

    python train_any.py              two hours on one core with AMX, 3 GB of memory
    python train_any.py --train-on train+validation
    python train_any.py --train-on train+validation --start runs/any-rsan-0 --patch-size 192 --epochs 12 \\
        --learning-rate 5e-4 --output-dir runs/any-192
    python train_any.py --train-on train+validation --start runs/any-192 --patch-size 256 --epochs 16 \\
        --steps-per-epoch 400 --learning-rate 1e-3 --output-dir runs/any-256
                                     all three: how weights/any_rsan was trained, but the first two with a
                                     vessel_weight of 1.5 and 1.2 for DRIVE (see results/README.md)
    python train_any.py mine.csv DRIVE CHASEDB1
    python train_any.py mine.csv --start weights/any_rsan.weights.h5 --epochs 10 --learning-rate 5e-4 \\
        --output-dir runs/mine
    python eval_any.py DRIVE CHASEDB1 --weights runs/any-rsan-0

mine.csv has a line for each photograph: image,label and, if available, fov,second,split (see data/README.md).
Expect a validation AUC of about 0.98 inside the field of view (images 23 and 40, 09R and 10L).
On a processor without AVX512-BF16 or AMX, add --no-mixed-precision.
Without the data, `--synthetic` trains on procedural images in two minutes.
"""

import sys

from vessels.data.sources import Several
from vessels.training.config import Recipe, main

RECIPE = Recipe(network="rsan_model", recipe="any", epochs=120, steps_per_epoch=200, batch_size=4, patch_size=128,
                keep_prob=0.96, mixed_precision=True)


if __name__ == "__main__":
    sys.exit(main(Several(), RECIPE, {}, __doc__))
