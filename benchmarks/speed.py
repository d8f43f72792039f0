"""Measures time and memory of a training step or of a prediction, and compares the time with the peak speed.

    python benchmarks/speed.py 2x592                          RSAN, two images of 592 x 592 pixels
    python benchmarks/speed.py 2x592 --variant backbone       another network
    python benchmarks/speed.py 2x592 --plain                  without this project's speed-ups
    python benchmarks/speed.py 1x592 --what prediction        or onnx: the general network in ONNX Runtime
    KERAS_BACKEND=jax python benchmarks/speed.py 2x592        another backend: jax, torch

Run it on an otherwise idle machine. DropBlock is on in training (keep_prob 0.85).
"""

import argparse
import contextlib
import importlib.util
import itertools
import math
import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


def fastest(function, repeats=5):
    """Seconds of the fastest of `repeats` calls, after one that is not counted."""
    function()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return min(times)


def peak_speed(gpu):
    """GFLOP/s of a large matrix product or, on a GPU, of large 3x3 convolutions, in float32 without TF32."""
    import keras
    from keras import layers, ops, random

    if not gpu:
        a = random.uniform((4096, 4096), seed=0)
        return 2 * 4096**3 / fastest(lambda: float(ops.matmul(a, a)[0, 0])) / 1e9

    def rate(filters, count=40, batch=8, side=256):
        convolutions = [layers.Conv2D(filters, 3, padding="same") for _ in range(count)]
        model = keras.Sequential([keras.Input((1, 1, filters)), layers.UpSampling2D(side), *convolutions,
                                  layers.GlobalAveragePooling2D()])
        x = ops.ones((batch, 1, 1, filters))
        return count * batch * 2 * side**2 * 9 * filters**2 / fastest(lambda: model.predict_on_batch(x)) / 1e9

    return max(rate(filters) for filters in (64, 128, 256))


def convolution_gflop(model):
    """10^9 operations of the convolutions for the prediction of one image: two for each multiplication."""
    total = 0
    for layer in model.layers:
        convolution = getattr(layer, "conv", layer)
        if "Conv2D" in type(convolution).__name__:
            transposed = "Transpose" in type(convolution).__name__
            _, height, width, _ = (layer.input if transposed else layer.output).shape
            total += 2 * height * width * math.prod(convolution.kernel.shape)
    return total / 1e9


def gpu_memory():
    """GB that this process has held at most on a GPU; None without a GPU."""
    import keras

    backend, held = keras.config.backend(), None
    if backend == "jax":
        import jax

        held = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    elif backend == "torch":
        import torch

        held = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
    else:
        import tensorflow as tf

        if tf.config.list_physical_devices("GPU"):
            held = tf.config.experimental.get_memory_info("GPU:0")["peak"]
    return None if held is None else held / 2**30


def peak_memory():
    """GB that this process has held at most; not a number on Windows, which lacks `resource`."""
    if not importlib.util.find_spec("resource"):
        return math.nan
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)


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

    from vessels.record import full_float32

    if arguments.precision == "bfloat16":
        keras.config.set_dtype_policy("mixed_bfloat16")
    with full_float32() if arguments.precision == "float32" else contextlib.nullcontext():
        measure(arguments)


def measure(arguments):
    import keras
    import numpy as np

    from vessels.prediction.runtimes import load_onnx
    from vessels.record import device

    from rsan_model import build_rsan

    batch, side = (int(number) for number in arguments.input.split("x"))
    model, gpu = build_rsan((side, side, 3), variant=arguments.variant), gpu_memory() is not None
    rng = np.random.default_rng(0)
    x, y = rng.random((batch, side, side, 3), "float32"), rng.random((batch, side, side, 1), "float32").round()
    gflop = batch * convolution_gflop(model)
    if arguments.what == "training":
        gflop *= 3  # a step counts as three forward passes
        model.compile(keras.optimizers.Adam(), "binary_crossentropy", jit_compile="auto")
        seconds = fastest(lambda: model.train_on_batch(x, y))
        if gpu:  # computes while the processor prepares the next step: only an epoch shows what a step takes
            batches = ((x, y) for _ in itertools.count())
            seconds = fastest(lambda: model.fit(batches, steps_per_epoch=20, verbose=0)) / 20
    else:
        network = load_onnx(ROOT / "weights" / "any_rsan.onnx") if arguments.what == "onnx" else model
        seconds = fastest(lambda: network.predict_on_batch(x))
    memory = gpu_memory() or peak_memory()
    print(f"{device()}: {seconds:.4f} s, {gflop / seconds:.0f} GFLOP/s, "
          f"{100 * gflop / seconds / peak_speed(gpu):.0f} % of the peak, {memory:.2f} GB")


if __name__ == "__main__":
    main()
