"""The network against outputs of the authors' own code (Keras 2.3.1, TensorFlow 1.14) on random weights."""

import json
import os
import pickle
import shutil
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from keras import ops

import fused
from attention_module import SpatialAttention
from dropblock import DropBlock2D
from rsan_model import VARIANTS, build_rsan, load_weights

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def reference():
    """Folder with the golden files that are too large for the repository."""
    folder = Path(os.environ.get("RSAN_REFERENCE", "missing"))
    if not folder.is_dir():
        pytest.skip("needs $RSAN_REFERENCE, the folder of the authors' 16-filter weights and outputs")
    return folder


def largest_difference(a, b):
    return np.abs(np.asarray(a) - np.asarray(b)).max()


def test_parameters():
    model = build_rsan()
    assert model.count_params() == 1_054_523
    assert sum(np.prod(weight.shape) for weight in model.trainable_weights) == 1_051_029


@pytest.mark.parametrize(("variant", "dropblocks", "attentions"), [
    ("rsan", 28, 7), ("backbone_dropblock", 28, 0), ("backbone", 0, 0)])
def test_an_ablation_lacks_what_it_is_named_for_and_nothing_else(variant, dropblocks, attentions):
    model = build_rsan(filters=2, keep_prob=0.7, block_size=5, variant=variant)
    drops = [layer for layer in model.layers if isinstance(layer, DropBlock2D)]
    assert (len(drops), sum(isinstance(layer, SpatialAttention) for layer in model.layers)) == (dropblocks, attentions)
    assert {(layer.keep_prob, layer.block_size) for layer in drops} <= {(0.7, 5)}


def test_outputs_and_attended_maps_are_the_authors(reference):
    model = build_rsan()
    load_weights(model, reference / "authors_random_weights.h5")
    golden = np.load(reference / "inference.npz")
    attended = [layer.output for layer in model.layers if isinstance(layer, SpatialAttention)]
    probability, *maps = keras.Model(model.input, [model.output, *attended]).predict(golden["x"], verbose=0)
    assert largest_difference(probability, golden["y"]) <= 1e-5
    assert len(maps) == 7
    for i, found in enumerate(maps):
        assert largest_difference(found[:1], golden[f"attention_{i}"]) <= 1e-5


def test_trained_outputs_are_the_authors():
    model = build_rsan(filters=4)
    load_weights(model, GOLDEN / "train_after.h5")
    golden = np.load(GOLDEN / "training.npz")
    assert largest_difference(model.predict(golden["x"][0], verbose=0), golden["predict_after"]) <= 1e-5


@pytest.fixture
def small():
    """The authors' 4-filter network before training, without DropBlock, and its golden outputs."""
    model = build_rsan(filters=4, keep_prob=1)
    load_weights(model, GOLDEN / "train_before.h5")
    return model, np.load(GOLDEN / "training.npz")


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="takes gradients with TensorFlow's tape")
def test_loss_and_gradients_are_the_authors(small):
    import tensorflow as tf

    model, golden = small
    with tf.GradientTape() as tape:
        loss = ops.mean(keras.losses.binary_crossentropy(golden["y"][0], model(golden["x"][0], training=True)))
    gradients = tape.gradient(loss, [weight.value for weight in model.trainable_weights])
    assert abs(float(loss) - golden["first_loss"]) <= 1e-5
    assert len(gradients) == 155
    for i, gradient in enumerate(gradients):
        assert largest_difference(gradient, golden[f"gradient_{i:03d}"]) <= 1e-5


def test_three_training_steps_are_the_authors(small):
    model, golden = small
    model.compile(keras.optimizers.SGD(0.05), loss="binary_crossentropy", metrics=["accuracy"], jit_compile=False)
    for i in range(3):
        loss, accuracy = model.train_on_batch(golden["x"][i], golden["y"][i])[:2]
        model.reset_metrics()
        assert abs(loss - golden["loss"][i]) <= 1e-4
        assert abs(accuracy - golden["accuracy"][i]) <= 1e-3
    after = model.predict(golden["x"][0], verbose=0)
    assert largest_difference(after, golden["predict_after"]) <= 5e-3


@pytest.mark.slow
@pytest.mark.parametrize("case", json.loads((GOLDEN / "dropblock_stats.json").read_text(encoding="utf-8")),
                         ids=lambda case: f"{case['height']}x{case['width']}")
@pytest.mark.parametrize("kernels", [True, False])
def test_dropblock_statistics_are_the_authors(case, kernels, monkeypatch):
    monkeypatch.setattr(fused, "FUSED", kernels)
    # Four times as many draws as the authors': most of the remaining difference is from their draws.
    height, width, draws = case["height"], case["width"], 4 * case["draws"]
    layer = DropBlock2D(case["keep_prob"], case["block_size"], seed=1)
    ones = np.ones((case["batch"], height, width, case["channels"]), "float32")
    kept, means = [], []
    for _ in range(draws):
        output = ops.convert_to_numpy(layer(ones, training=True))
        kept.append(output > 0)
        means.append(output.mean())
    kept = np.array(kept)
    both = np.sqrt((1 + 1 / 4) / case["draws"])
    assert abs(kept.mean() - case["kept_fraction"]) <= 4 * both * case["kept_fraction_std_per_draw"]
    for name, (y, x) in {"kept_at_centre": (height // 2, width // 2), "kept_at_corner": (0, 0)}.items():
        expected = case[name]
        error = both * np.sqrt(expected * (1 - expected) / (case["batch"] * case["channels"]))
        assert abs(kept[:, :, y, x].mean() - expected) <= 4 * error, name
    assert means == pytest.approx([1] * draws, abs=1e-5)


def runs_of_zeros(line):
    return [len(run) for run in "".join("1" if value else "0" for value in line).split("1") if run]


@pytest.mark.parametrize(("block_size", "channels"), [(7, 16), (5, 3), (4, 8), (1, 20)])
def test_dropblock_drops_whole_blocks_in_each_channel_by_itself(block_size, channels):
    layer = DropBlock2D(0.9, block_size, seed=2)
    output = np.asarray(layer(np.ones((3, 40, 56, channels), "float32"), training=True))
    for sample in output:
        for channel in range(channels):
            dropped = sample[..., channel] == 0
            runs = [run for line in [*dropped, *dropped.T] for run in runs_of_zeros(~line)]
            assert min(runs, default=block_size) >= block_size
    assert 0.85 < (output > 0).mean() < 0.95
    if channels > 3:
        assert (output[..., 0] != output[..., 1]).any()


def test_dropblock_in_a_graph_draws_anew_and_shares_channels_on_request():
    layer = DropBlock2D(0.8, sync_channels=True)
    inputs = keras.Input((32, 48, 12))
    model = keras.Model(inputs, layer(inputs))
    ones = np.ones((2, 32, 48, 12), "float32")
    first, second = np.asarray(model(ones, training=True)), np.asarray(model(ones, training=True))
    assert (first != second).any()
    assert (first == first[..., :1]).all()
    assert (np.asarray(model(ones, training=False)) == 1).all()


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the fused operations are TensorFlow's")
def test_fused_network_is_the_unfused_one(monkeypatch):
    import tensorflow as tf

    golden = np.load(GOLDEN / "training.npz")
    results = []
    for switch in (False, True):
        monkeypatch.setattr(fused, "FUSED", switch)
        keras.utils.set_random_seed(1)
        model = build_rsan(filters=4, keep_prob=1)  # the blocks are drawn in another way
        with tf.GradientTape() as tape:
            probability = model(golden["x"][0], training=True)
            loss = ops.mean(keras.losses.binary_crossentropy(golden["y"][0], probability))
        gradients = tape.gradient(loss, [weight.value for weight in model.trainable_weights])
        results.append([probability, *gradients, *model.get_weights(), model(golden["x"][1])])
    for plain, quick in zip(*results, strict=True):
        # Single values differ more: rounding decides on which side of zero the input of a ReLU is.
        assert np.linalg.norm(np.subtract(quick, plain)) <= 0.005 * np.linalg.norm(plain) + 1e-5


def test_keras_configuration_does_not_turn_images_round():
    x = np.random.default_rng(0).random((1, 64, 72, 3), "float32")
    keras.utils.set_random_seed(1)
    wanted = build_rsan(filters=2).predict(x, verbose=0)
    keras.config.set_image_data_format("channels_first")
    try:
        keras.utils.set_random_seed(1)
        found = build_rsan(filters=2).predict(x, verbose=0)
    finally:
        keras.config.set_image_data_format("channels_last")
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("variant", VARIANTS)
def test_round_trip_of_the_whole_model(variant, tmp_path):
    model = build_rsan(filters=4, variant=variant)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    x = np.random.default_rng(0).random((1, 64, 72, 3), "float32")
    # Not always equal: a GPU may choose another algorithm each time it compiles.
    assert largest_difference(model.predict(x, verbose=0), again.predict(x, verbose=0)) <= 1e-6
    assert again.count_params() == model.count_params()


def test_probabilities_are_not_rounded_under_mixed_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build_rsan(filters=4, variant="backbone")
    finally:
        keras.config.set_dtype_policy(before)
    assert (model.layers[-2].compute_dtype, model.output.dtype) == ("bfloat16", "float32")


@pytest.mark.parametrize(("write", "name"), [
    (keras.Model.save_weights, "a.weights.h5"), (keras.Model.save, "whole_model.h5"),
    (lambda _, path: shutil.copy(GOLDEN / "train_before.h5", path), "authors.weights.h5"),
])
def test_weights_of_every_form_load(write, name, tmp_path):
    model, other = build_rsan(filters=4), build_rsan(filters=4)
    load_weights(model, GOLDEN / "train_before.h5")
    write(model, tmp_path / name)
    load_weights(other, tmp_path / name)
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


class Trap:
    """Creates a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


NO_WEIGHTS = [
    (lambda path: path.write_text("not HDF5"), "not a readable HDF5 file"),
    (lambda path: path.write_bytes((GOLDEN / "train_before.h5").read_bytes()[:200_000]), "not a readable HDF5 file"),
    (lambda path: path.write_bytes(pickle.dumps(Trap(str(path.parent / "sprung")))), "not a readable HDF5 file"),
    (lambda path: h5py.File(path, "w").close(), "0 arrays that do not match the 218 of backbone"),
    (lambda path: build_rsan(filters=4).save_weights(path), "225 arrays that do not match the 218 of backbone"),
    (lambda path: build_rsan(filters=8, variant="backbone").save_weights(path), "218 arrays that do not match the 218"),
    (lambda path: path.write_bytes((GOLDEN / "train_before.h5").read_bytes()), "225 arrays that do not match the 218"),
]


@pytest.mark.parametrize(("make", "message"), NO_WEIGHTS)
def test_what_is_not_the_networks_is_refused_and_never_run(make, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "some.weights.h5")
    model = build_rsan(filters=4, variant="backbone")
    before = model.get_weights()
    with pytest.raises(ValueError, match=message):
        load_weights(model, tmp_path / "some.weights.h5")
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_shape": (100, 96, 3)}, "multiples of 8"),
        ({"input_shape": (48, 96, 3)}, "at least 56"),
        ({"variant": "unet"}, "variant must be one of"),
        ({"keep_prob": 0}, "keep_prob must be in"),
        ({"keep_prob": 1.5}, "keep_prob must be in"),
    ],
)
def test_impossible_networks_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_rsan(**arguments)
