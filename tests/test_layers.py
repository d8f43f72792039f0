"""The layers in anyone's network; tests/test_backends.py runs this file on Keras' other backends too."""

import inspect
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from conftest import ROOT
from keras import layers, ops
from keras.src.testing import TestCase

import fused
from attention_module import SpatialAttention
from dropblock import DropBlock2D, blocks
from fused import BatchNormalization, Conv2DTranspose
from rsan_model import residual_block, rsab, set_stage

BACKEND = keras.backend.backend()
on_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="of TensorFlow alone")



@pytest.fixture(params=[True, False], ids=["kernels", "plain"])
def either_way(request, monkeypatch):
    monkeypatch.setattr(fused, "FUSED", request.param)


def some(*shape, seed=0):
    return np.random.default_rng(seed).random(shape, "float32")


def array_of(tensor):
    return ops.convert_to_numpy(ops.stop_gradient(ops.cast(tensor, "float32")))


def gradient(function, x):
    """Gradient of a function from one array to a number, on any backend."""
    if BACKEND == "jax":
        import jax

        return np.asarray(jax.grad(function)(ops.convert_to_tensor(x)))
    if BACKEND == "torch":
        x = ops.convert_to_tensor(x).requires_grad_()
        function(x).backward()
        return x.grad.numpy()
    import tensorflow as tf

    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    return tape.gradient(y, x).numpy()


@pytest.mark.parametrize(("layer", "arguments", "channels", "weights"), [
    (SpatialAttention, {"kernel_size": 5}, 6, (1, 0)),
    (DropBlock2D, {"keep_prob": 0.9, "block_size": 5}, 6, (0, 0)),
    (BatchNormalization, {"momentum": 0.9}, 6, (2, 2)),
])
def test_layers_conform_to_keras(layer, arguments, channels, weights):
    TestCase().run_layer_test(
        layer, arguments, input_shape=(2, 16, 24, 6), expected_output_shape=(2, 16, 24, channels),
        expected_num_trainable_weights=weights[0], expected_num_non_trainable_weights=weights[1],
        expected_num_seed_generators=int(layer is DropBlock2D),
    )


@on_tensorflow
@pytest.mark.parametrize("layer", [SpatialAttention(), DropBlock2D(0.9), BatchNormalization(),
                                   Conv2DTranspose(2, 3, 2)], ids=lambda layer: layer.name)
def test_layers_see_each_frame_of_a_film(layer):
    frames = some(2, 3, 16, 24, 4)
    model = keras.Sequential([keras.Input(frames.shape[1:]), layers.TimeDistributed(layer)])
    y = model.predict(frames, verbose=0)
    assert model.output_shape == (None, *y.shape[1:])
    np.testing.assert_allclose(y[:, 2], layer(frames[:, 2]), atol=1e-6)
    model.compile("sgd", "mse")
    assert np.isfinite(model.train_on_batch(frames, y))


@pytest.mark.parametrize("saved_under", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "float64"])
def test_attention_keeps_its_own_policy(saved_under, policy, tmp_path):
    before = keras.config.dtype_policy()
    x = some(1, 16, 24, 4)
    try:
        keras.config.set_dtype_policy(saved_under)
        model = keras.Sequential([keras.Input((16, 24, 4)), SpatialAttention(dtype=policy)])
        model.save(tmp_path / "model.keras")
        keras.config.set_dtype_policy("float32")
        again, clone = keras.saving.load_model(tmp_path / "model.keras"), keras.models.clone_model(model)
    finally:
        keras.config.set_dtype_policy(before)
    assert {layer.conv.dtype_policy.name for layer in (model.layers[0], again.layers[0], clone.layers[0])} == {policy}
    np.testing.assert_array_equal(array_of(again(x)), array_of(model(x)))


NORMALIZATIONS = {
    "4-D": {}, "2-D": {"shape": (6, 5)}, "3-D": {"shape": (6, 7, 5)}, "axis 1": {"axis": 1}, "axis 3": {"axis": 3},
    "no scale": {"scale": False}, "no centre": {"center": False}, "frozen": {"trainable": False},
    "renorm": {"renorm": True, "renorm_clipping": {"rmax": 1.1, "rmin": 0.9, "dmax": 0.1}},
    "synchronized": {"synchronized": BACKEND == "tensorflow"},
    "mask": {"mask": np.arange(2 * 6 * 7).reshape(2, 6, 7) % 3 > 0},
    **{policy: {"dtype": policy} for policy in ("mixed_float16", "mixed_bfloat16", "bfloat16", "float16", "float64")},
}


@pytest.mark.parametrize("case", NORMALIZATIONS)
def test_normalization_is_keras_whatever_it_is_asked(case):
    arguments = dict(NORMALIZATIONS[case])
    if "renorm" in arguments and "renorm" not in inspect.signature(layers.BatchNormalization).parameters:
        pytest.skip("this Keras has no renorm")
    x, mask = some(*arguments.pop("shape", (2, 6, 7, 5))) * 4 + 1, arguments.pop("mask", None)
    results, dtypes = [], []
    for kind in (layers.BatchNormalization, BatchNormalization):
        layer = kind(momentum=0.7, **arguments)
        for training in (True, True, False):
            y = layer(inputs=x, training=training, mask=mask)
        results.append([array_of(array) for array in [y, *layer.weights]])
        dtypes.append(y.dtype)
    assert dtypes[0] == dtypes[1]
    for wanted, found in zip(*results, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5 if "16" not in case else 0.02)


TRANSPOSED = {
    "as in RSAN": {}, "even": {"kernel_size": 4}, "wide": {"kernel_size": (2, 5), "strides": (3, 1)},
    "valid": {"padding": "valid"}, "dilation": {"strides": 1, "dilation_rate": 2}, "no bias": {"use_bias": False},
    "activation": {"activation": "sigmoid"}, "bfloat16": {"dtype": "mixed_bfloat16"},
}


@pytest.mark.parametrize("case", TRANSPOSED)
def test_transposed_convolution_learns_what_keras_does(case):
    arguments = {"filters": 3, "kernel_size": 3, "strides": 2, "padding": "same", **TRANSPOSED[case]}
    results = []
    for kind in (layers.Conv2DTranspose, Conv2DTranspose):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((6, 7, 4)), layers.Conv2D(5, 1), kind(**arguments)])
        model.compile(keras.optimizers.SGD(0.5), "mse", jit_compile="auto")
        x = some(2, 6, 7, 4)
        before = np.asarray(model.predict_on_batch(x), "float32")  # no bfloat16, which an old NumPy cannot compare
        model.train_on_batch(x, some(*before.shape, seed=1))
        results.append([before, *model.get_weights()])
    for wanted, found in zip(*results, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5 if case != "bfloat16" else 0.02)


@pytest.mark.parametrize(("block_size", "channels", "sync"), [(5, 20, False), (1, 3, False), (3, 4, True)])
def test_gradient_of_dropblock_is_what_it_multiplied_by(block_size, channels, sync, either_way):
    x, upstream = some(2, 16, 24, channels) + 1, some(2, 16, 24, channels, seed=1)
    layer = DropBlock2D(0.8, block_size, sync_channels=sync, seed=3)

    def loss(x):
        return ops.sum(ops.multiply(layer(x, training=True), upstream))

    found = gradient(loss, x)
    layer.seed_generator.state.assign([3, 0])
    y = array_of(layer(x, training=True))
    assert 0.1 < (y == 0).mean() < 0.3
    np.testing.assert_allclose(found, upstream * y / x, rtol=1e-5)


@pytest.mark.parametrize(("size", "channels"), [(7, 20), (4, 3), (1, 16)])
def test_the_kernel_grows_the_same_seeds_into_the_same_blocks(size, channels):
    gaps = fused.gaps(some(2, 200), 0.01, size, (24, 33, channels))
    seeds, mask = (fused.unpack(fused.packed_blocks(gaps, 24 - less, 33 - less, channels, grown), channels)
                   for less, grown in ((size - 1, 1), (0, size)))
    assert 0.005 < array_of(seeds).mean() < 0.015
    np.testing.assert_array_equal(array_of(mask), array_of(blocks(seeds, size)))


@pytest.mark.parametrize("keep_prob", [1 - 1e-9, 1 - 1e-16, 1e-20])
def test_dropblock_accepts_extreme_keep_probs(keep_prob, either_way):
    y = array_of(DropBlock2D(keep_prob, seed=1)(np.ones((2, 64, 64, 16), "float32"), training=True))
    # The number of blocks that may cover a position, each with probability 64 ** 2 / 58 ** 2 / 49.
    blocks = np.convolve(np.ones(58), np.ones(7))
    kept = 1 if keep_prob > 0.5 else ((1 - 64**2 / 58**2 / 49) ** np.outer(blocks, blocks)).mean()
    assert (y > 0).mean() == pytest.approx(kept, abs=0.02) and y.mean() == pytest.approx(1, abs=1e-5)


def test_dropblock_refuses_maps_smaller_than_a_block_only_where_it_drops(either_way):
    for height, width in ((6, 9), (9, 3), (1, 1)):
        x = some(1, height, width, 2)
        with pytest.raises(ValueError, match=f"blocks of 7 are larger than the map.*got {height}x{width}"):
            DropBlock2D(0.9, 7)(x, training=True)
        np.testing.assert_array_equal(array_of(DropBlock2D(0.9, 7)(x, training=False)), x)
        np.testing.assert_array_equal(array_of(DropBlock2D(1, 7)(x, training=True)), x)
    assert (array_of(DropBlock2D(0.9, 7)(some(1, 7, 7, 2), training=True)) >= 0).all()


@on_tensorflow
def test_dropblock_learns_the_sides_when_it_runs():
    import tensorflow as tf

    layer = DropBlock2D(0.85, 7, seed=1)
    drop = tf.function(lambda x: layer(x, training=True), input_signature=[tf.TensorSpec((None, None, None, 16))])
    for batch, height, width in ((2, 64, 64), (3, 40, 96), (1, 128, 7)):
        x = np.ones((batch, height, width, 16), "float32")
        found = drop(x).numpy()
        layer.seed_generator.state.assign([2, 0])
        wanted = layer(x, training=True).numpy()
        assert found.shape == x.shape and found.mean() == pytest.approx(1, abs=1e-5)
        assert (found > 0).mean() == pytest.approx((wanted > 0).mean(), abs=0.05)
    with pytest.raises(tf.errors.InvalidArgumentError, match="larger than the map"):
        drop(np.ones((1, 6, 64, 16), "float32"))


def small_network():
    inputs = keras.Input((24, 32, 3))

    def drop(x):
        return DropBlock2D(0.8, 5)(x)

    x = rsab(residual_block(inputs, 6, drop), 6, drop, lambda x: SpatialAttention()(x))
    return keras.Model(inputs, layers.Conv2D(1, 1, activation="sigmoid", dtype="float32")(x))


@pytest.mark.slow
@pytest.mark.skipif(BACKEND == "torch", reason="compiles nothing by default")
@pytest.mark.parametrize(("policy", "stage"), [
    ("float32", None), ("float32", (0.9, 0.5)), ("mixed_bfloat16", (0.85, 0.5)),
])
def test_compiled_steps_learn_what_uncompiled_ones_do(policy, stage, monkeypatch):
    numbers = some(100_000)  # XLA and TensorFlow draw different ones
    monkeypatch.setattr(keras.random, "uniform", lambda shape, seed: ops.reshape(
        ops.convert_to_tensor(numbers)[: shape[0] * shape[1]], shape))
    before = keras.config.dtype_policy()
    x, y = some(2, 24, 32, 3), some(2, 24, 32, 1).round()
    learned = []
    try:
        keras.config.set_dtype_policy(policy)
        for how in ({"run_eagerly": True}, {"jit_compile": False}, {"jit_compile": True})[BACKEND == "jax" :]:
            keras.utils.set_random_seed(1)
            model = small_network()
            model.compile(keras.optimizers.SGD(0.1), "binary_crossentropy", **how)
            if stage:
                set_stage(model, *stage)
            old = model.get_weights()
            for _ in range(2):
                model.train_on_batch(x, y)
            learned.append(np.concatenate([(a - b).ravel() for a, b in zip(model.get_weights(), old, strict=True)]))
    finally:
        keras.config.set_dtype_policy(before)
    for other in learned[1:]:
        largest = np.linalg.norm(learned[0]) * (1e-4 if policy == "float32" else 0.05)
        assert np.linalg.norm(other - learned[0]) < largest


@on_tensorflow
def test_anyones_network_with_the_blocks_can_be_exported(tmp_path):
    import tensorflow as tf

    inputs = keras.Input((None, None, 3))
    x = DropBlock2D(0.9)(BatchNormalization()(layers.Conv2D(4, 3, padding="same")(inputs)))
    model = keras.Model(inputs, SpatialAttention()(x))
    x = some(2, 24, 28, 3)
    model(x, training=True)  # compiled for training first
    model.export(tmp_path, format="tf_saved_model", verbose=False)
    loaded = tf.saved_model.load(tmp_path)
    found = loaded.serve(x).numpy()
    np.testing.assert_allclose(found, model.predict(x, verbose=0), atol=1e-5)


FINDER = """
import os, sys, json
class Finder:
    def find_spec(self, name, *_):
        if name in ("keras", "tensorflow"):
            print(json.dumps([os.environ.get("TF_ENABLE_ONEDNN_OPTS"), os.environ.get("TF_CPP_MIN_LOG_LEVEL")]))
            sys.stdout.flush()
            os._exit(0)
sys.meta_path.insert(0, Finder())
import """


@pytest.mark.parametrize("module", ["rsan_model", "attention_module", "dropblock", "fused"])
@pytest.mark.parametrize("own", [{}, {"TF_ENABLE_ONEDNN_OPTS": "0"}])
def test_settings_are_made_before_tensorflow_reads_them(module, own):
    done = subprocess.run([sys.executable, "-c", FINDER + module], cwd=ROOT, capture_output=True, text=True,
                          env={**own, **{name: os.environ[name] for name in ("SYSTEMROOT",) if name in os.environ}})
    assert json.loads(done.stdout) == [own.get("TF_ENABLE_ONEDNN_OPTS", "1"), "2"], done.stderr
