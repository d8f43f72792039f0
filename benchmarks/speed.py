"""Measures time and memory of a training step or of a prediction.

    python benchmarks/speed.py 2x592                          RSAN, two images of 592 x 592 pixels
    python benchmarks/speed.py 2x592 --variant backbone       another network
    python benchmarks/speed.py 2x592 --plain                  without this project's speed-ups
    python benchmarks/speed.py 1x592 --what prediction        or onnx: the general network in ONNX Runtime
    KERAS_BACKEND=jax python benchmarks/speed.py 2x592        another backend: jax, torch

Run it on an otherwise idle machine with Linux. DropBlock is on in training (keep_prob 0.85). Memory is that of the
process, without that of a GPU.
"""

import argparse
import contextlib
import itertools
import os
import resource
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
STEPS = 10  # a GPU computes while the processor prepares the next step: only an epoch shows what a step takes


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", metavar="BATCHxSIDE", help="number and side of the images, such as 2x592")
    parser.add_argument("--what", choices=("training", "prediction", "onnx"), default="training")
    parser.add_argument("--variant", default="rsan", help="rsan (default), backbone_dropblock or backbone")
    parser.add_argument("--precision", choices=("float32", "tf32", "bfloat16"), default="float32",
                        help="tf32: float32 that a GPU rounds to TF32 before it multiplies, as in training; bfloat16: "
                        "--mixed-precision (default: float32)")
    parser.add_argument("--plain", action="store_true", help="oneDNN as TensorFlow sets it, Keras' own layers, and "
                        "DropBlock as max pooling of a float mask")
    return parser.parse_args()


def main():
    arguments = parse()
    if arguments.plain:
        os.environ["RSAN_FUSED"] = "0"
    else:
        import vessels  # noqa: F401 - sets what TensorFlow reads
    import keras

    from vessels.record import device, full_float32

    if arguments.precision == "bfloat16":
        keras.config.set_dtype_policy("mixed_bfloat16")
    with full_float32() if arguments.precision == "float32" else contextlib.nullcontext():
        steps = work(arguments)
        steps()
        times = []
        for _ in range(3):
            began = time.perf_counter()
            steps()
            times.append(time.perf_counter() - began)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{device()}: {min(times) / STEPS:.4f} s, {memory:.2f} GB")


def work(arguments):
    """A function of nothing: `STEPS` training steps or predictions."""
    import keras
    import numpy as np

    from vessels.prediction.runtimes import load_onnx

    from rsan_model import build_rsan

    batch, side = (int(number) for number in arguments.input.split("x"))
    x = np.random.default_rng(0).random((batch, side, side, 3), "float32")
    if arguments.what == "onnx":
        model = load_onnx(ROOT / "weights" / "any_rsan.onnx")
    else:
        model = build_rsan((side, side, 3), variant=arguments.variant)
    if arguments.what != "training":
        return lambda: [model.predict_on_batch(x) for _ in range(STEPS)]
    model.compile(keras.optimizers.Adam(), "binary_crossentropy", jit_compile="auto")
    batches = ((x, label) for label in itertools.repeat(x[..., :1].round()))
    return lambda: model.fit(batches, steps_per_epoch=STEPS, verbose=0)


if __name__ == "__main__":
    main()
