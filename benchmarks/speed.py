"""Measures time and peak memory of training and prediction, and compares them with plain Keras and the peak speed.

    python benchmarks/speed.py                                     12 minutes on two cores, 5 GB of memory
    python benchmarks/speed.py --input 2x592 --variant backbone    one input size, one network
    KERAS_BACKEND=jax python benchmarks/speed.py --input 2x592     another backend: jax, torch

Run it on an otherwise idle machine. Each row is measured in a process of its own, so that its peak memory is its own.
"plain" is the network without this project's speed-ups: oneDNN as TensorFlow sets it, Keras' batch
normalization and Conv2D, and DropBlock as 7x7 max pooling of a float mask. DropBlock is on in training
(keep_prob 0.85).
"""

import argparse
import contextlib
import importlib.util
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

PRECISIONS = ("float32", "tf32", "bfloat16")
VARIANTS = ("rsan", "backbone_dropblock", "backbone")


def fastest(function, repeats):
    """Seconds of the fastest of `repeats` calls, after one that is not counted."""
    function()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return min(times)


def sgemm_peak():
    """GFLOP/s of a large float32 matrix product on all cores."""
    from keras import ops, random

    a = random.uniform((4096, 4096), seed=0)
    return 2 * 4096**3 / fastest(lambda: float(ops.matmul(a, a)[0, 0]), 8) / 1e9


def convolution_peak():
    """GFLOP/s of large 3x3 convolutions on a GPU, in float32 without TF32, the best of three numbers of filters."""
    import keras
    import numpy as np
    from keras import layers

    def rate(filters, count=40, batch=8, side=256):
        x = inputs = keras.Input((1, 1, filters))
        x = layers.UpSampling2D(side)(x)
        for _ in range(count):
            x = layers.Conv2D(filters, 3, padding="same")(x)
        model = keras.Model(inputs, layers.GlobalAveragePooling2D()(x))
        ones = np.ones((batch, 1, 1, filters), "float32")
        gflop = count * batch * 2 * side**2 * 9 * filters**2 / 1e9
        return gflop / fastest(lambda: model.predict_on_batch(ones), 5)

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


def plain_dropblock():
    """DropBlock as it is usually written, for comparison."""
    import keras
    from keras import ops

    class PlainDropBlock2D(keras.layers.Layer):
        def __init__(self, keep_prob, block_size=7, **kwargs):
            super().__init__(**kwargs)
            self.keep_prob, self.block_size = keep_prob, block_size
            self.seed_generator = keras.random.SeedGenerator(0)

        def call(self, x, training=False):
            if not training:
                return x
            b, (_, height, width, channels) = self.block_size, x.shape
            rows, columns = height - b + 1, width - b + 1
            gamma = (1 - self.keep_prob) / b**2 * height * width / (rows * columns)
            uniform = keras.random.uniform((ops.shape(x)[0], rows, columns, channels), seed=self.seed_generator)
            seeds = ops.pad(ops.cast(uniform < gamma, x.dtype), ((0, 0), (b // 2, b // 2), (b // 2, b // 2), (0, 0)))
            mask = 1 - ops.max_pool(seeds, b, 1, "same")
            return x * mask * (ops.cast(ops.size(mask), x.dtype) / ops.sum(mask))

    return PlainDropBlock2D


def measure(task):
    """Measures one row of the table in this process: dict of seconds, GFLOP and GB."""
    if not task.get("plain"):
        import vessels  # noqa: F401 - sets what TensorFlow reads
    import keras  # noqa: F401 - the precision is a setting of its backend

    from vessels.record import full_float32

    with full_float32() if task["precision"] == "float32" else contextlib.nullcontext():
        return measure_row(task)


def measure_row(task):
    import keras
    import numpy as np

    from vessels.record import device

    import rsan_model

    gpu = gpu_memory() is not None
    if task["precision"] == "bfloat16":
        keras.config.set_dtype_policy("mixed_bfloat16")
    if task["what"] == "peak":
        return {"gpu": gpu, "device": device(), "peak": convolution_peak() if gpu else sgemm_peak()}
    if task.get("plain"):
        rsan_model.DropBlock2D = plain_dropblock()
    batch, side = task["batch"], task["side"]
    model = rsan_model.build_rsan((side, side, 3), variant=task["variant"])
    row = {"gflop": batch * convolution_gflop(model)}
    rng = np.random.default_rng(0)
    x, y = rng.random((batch, side, side, 3), "float32"), rng.random((batch, side, side, 1)) < 0.1
    if task["what"] in ("training", "pipeline"):
        model.compile(keras.optimizers.Adam(), "binary_crossentropy", jit_compile="auto")
        if task["what"] == "pipeline":
            return measure_pipeline(model, batch, side)
        # A GPU computes while the processor prepares the next step: only an epoch shows what a step takes.
        row["step"] = step_seconds(model, (x, y), 20) if gpu else fastest(lambda: model.train_on_batch(x, y), 5)
    predict = model.predict_on_batch
    if task["what"] == "onnx":
        predict = onnx_runtime(rsan_model.build_rsan(variant=task["variant"]))
    row["forward"] = fastest(lambda: predict(x), 5)
    row["memory"] = gpu_memory() or peak_memory()
    return row


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


def onnx_runtime(model):
    """Returns a function that predicts a batch with ONNX Runtime."""
    import tempfile

    from vessels.prediction import export

    from fused import unfused

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rsan.onnx"
        export.export(model, "onnx", path, unfused)
        return export.onnx(path)


def measure_pipeline(model, batch, side):
    """Seconds of a step fed by `batches.Patches`, of a step fed with a ready batch, and of making a batch."""
    from vessels.data import augmentation, published, synthetic

    steps = 20
    patches = augmentation.Patches(synthetic.make(published.DRIVE, "train"), side, batch, steps)
    fed = fastest(lambda: model.fit(patches, verbose=0, shuffle=False), 3) / steps
    return {"fed": fed, "at_hand": step_seconds(model, patches[0], steps), "making": fastest(lambda: patches[0], 20)}


def step_seconds(model, batch, steps):
    """Seconds of a training step in an epoch of `steps`, all on this `batch`."""
    import keras

    from vessels.data import augmentation

    class AtHand(keras.utils.PyDataset):
        def __len__(self):
            return steps

        def __getitem__(self, index):
            return batch

    data = AtHand(workers=augmentation.WORKERS)
    return fastest(lambda: model.fit(data, verbose=0, shuffle=False), 3) / steps


def row_of(task):
    """`measure(task)` in a process of its own; "plain" is set in the environment of that process."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "RSAN_FUSED": "0" if task.get("plain") else "1"}
    command = [sys.executable, __file__, "--measure", json.dumps(task)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def geometry(text):
    try:
        batch, side = (int(number) for number in text.split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} must be BATCHxSIDE, such as 2x592") from None
    return batch, side


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", nargs="+", type=geometry, metavar="BATCHxSIDE",
                        default=[(2, 592), (2, 296), (4, 128), (16, 128), (1, 1008)],
                        help="inputs of the training step (default: 2x592 2x296 4x128 16x128 1x1008)")
    parser.add_argument("--variant", nargs="+", choices=VARIANTS, default=VARIANTS, help="networks (default: all)")
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, help="float32; tf32: float32 that a GPU "
                        "rounds to TF32 before it multiplies, as in training; bfloat16: --mixed-precision (default: "
                        "float32, on a GPU all)")
    parser.add_argument("--measure", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure)))
        return
    first = row_of({"what": "peak", "precision": "float32"})
    peak, precisions = first["peak"], arguments.precision or (PRECISIONS if first["gpu"] else ("float32",))
    print(f"{first['device']}, float32 {'convolution without TF32' if first['gpu'] else 'matrix product'}: {peak:.0f} "
          "GFLOP/s; a training step counts as three forward passes\n")
    head = ("input", "network", "step s", "forward s", "GFLOP/s", "of peak", "memory GB")
    print("| " + " | ".join(head) + " |\n|" + " --- |" * len(head))

    def row(what, variant, batch, side, precision=precisions[0], plain=False):
        found = row_of({"what": what, "variant": variant, "batch": batch, "side": side, "precision": precision,
                        "plain": plain})
        training = "step" in found
        rate = 3 * found["gflop"] / found["step"] if training else found["gflop"] / found["forward"]
        note = f", {precision}" * (precision != "float32") + ", plain" * plain + ", ONNX Runtime" * (what == "onnx")
        print(f"| {batch}x{side}{'' if training else ' prediction'} | {variant}{note} "
              f"| {format(found['step'], '.4f') if training else '-'} | {found['forward']:.4f} | {rate:.0f} "
              f"| {100 * rate / peak:.0f} % | {found['memory']:.2f} |", flush=True)
        return found

    shares, sides = {}, dict.fromkeys(side for _, side in arguments.input)
    for batch, side in arguments.input:
        steps = {variant: row("training", variant, batch, side)["step"] for variant in arguments.variant}
        if {"rsan", "backbone"} <= set(steps):
            shares[batch, side] = 1 - steps["backbone"] / steps["rsan"]
        for precision in precisions[1:]:
            row("training", arguments.variant[0], batch, side, precision)
    batch, side = arguments.input[0]
    row("training", arguments.variant[0], batch, side, plain=True)
    for side in sides:
        for precision in precisions:
            row("prediction", arguments.variant[0], 1, side, precision)
    if os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow":  # on others, plain layers predict, too
        row("prediction", arguments.variant[0], 1, next(iter(sides)), plain=True)
        if all(importlib.util.find_spec(name) for name in ("onnxruntime", "tf2onnx")):
            row("onnx", arguments.variant[0], 1, next(iter(sides)))
    print()
    for (batch, side), share in shares.items():
        print(f"DropBlock and attention, {batch}x{side}: {100 * share:.0f} % of the step")
    for batch, side in arguments.input:
        if side < 200:
            fed = row_of({"what": "pipeline", "variant": arguments.variant[0], "batch": batch, "side": side,
                          "precision": precisions[0]})
            print(f"batches of {batch}x{side}: {1 / fed['making']:.0f} a second from the pipeline; a step takes "
                  f"{fed['fed']:.3f} s fed by it, {fed['at_hand']:.3f} s with a ready batch "
                  f"({100 * (fed['fed'] / fed['at_hand'] - 1):+.1f} %)", flush=True)


if __name__ == "__main__":
    main()
