"""keep_prob and momentum change between steps without a new compilation; runs on Keras' other backends too."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from vessels.training.config import Recipe
from vessels.training.schedules import training_loss

import fused
import small
from dropblock import DropBlock2D
from rsan_model import set_stage

BACKEND = keras.backend.backend()


@pytest.fixture
def traces(monkeypatch):
    """How often DropBlock was traced (on PyTorch: called) in training."""
    count = []
    call = DropBlock2D.call

    def counted(self, inputs, training=False):
        if training:
            count.append(1)
        return call(self, inputs, training=training)

    monkeypatch.setattr(DropBlock2D, "call", counted)
    return count


def test_the_share_changes_and_the_step_is_compiled_once(traces):
    inputs = keras.Input((40, 48, 20))
    model = keras.Model(inputs, DropBlock2D(0.8, 3, seed=1)(inputs))
    model.compile("sgd", lambda _, kept: ops.mean(ops.cast(kept == 0, "float32")), jit_compile=BACKEND == "jax")
    x = np.ones((4, 40, 48, 20), "float32")

    def loss():
        model.reset_metrics()  # Keras 3.8 averages over batches
        return float(model.train_on_batch(x, x))

    set_stage(model, 1)
    assert loss() == 0
    traced = len(traces)
    for keep_prob in (0.9, 1, 0.8, 0.95, 1):
        set_stage(model, keep_prob)
        assert model.layers[1].keep_prob == model.layers[1].get_config()["keep_prob"] == keep_prob
        dropped = 1 - np.exp(keep_prob - 1)  # overlapping blocks drop a value only once
        assert loss() == pytest.approx(dropped, abs=0.006 * (keep_prob < 1))
    if BACKEND != "torch":
        assert len(traces) == traced
    set_stage(model, 0.4)  # more blocks than the compiled step draws
    assert loss() == pytest.approx(1 - np.exp(-0.6), abs=0.03)
    model.layers[1].keep_prob = 0.7
    assert loss() == pytest.approx(1 - np.exp(-0.3), abs=0.02)
    with pytest.raises(ValueError, match="keep_prob must be in"):
        set_stage(model, 1.1)


def test_few_blocks_on_a_large_map():
    x = np.ones((3, 592, 592, 16), "float32")
    inputs = keras.Input(x.shape[1:])
    model = keras.Model(inputs, DropBlock2D(0.85, seed=1)(inputs))
    set_stage(model, 0.85)
    set_stage(model, 0.9999)
    assert 0 < float(ops.mean(ops.cast(model(x, training=True) == 0, "float32"))) < 2e-4


@pytest.mark.parametrize("how", ["fused", "unfused"])
def test_the_momentum_changes_and_the_step_is_compiled_once(how, monkeypatch):
    monkeypatch.setattr(fused, "FUSED", fused.FUSED and how == "fused")
    x = np.random.default_rng(0).random((3, 8, 8, 2), "float32")
    inputs = keras.Input((8, 8, 2))
    layer = fused.BatchNormalization(momentum=0.6)
    model = keras.Model(inputs, layer(inputs))
    model.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=BACKEND == "jax")
    mean, variance = np.zeros(2), np.ones(2)
    for momentum in (0.6, 0.9, 0.3, 1):
        set_stage(model, momentum=momentum)
        assert layer.momentum == layer.get_config()["momentum"] == momentum
        model.train_on_batch(x, x)
        mean = momentum * mean + (1 - momentum) * x.mean((0, 1, 2))
        variance = momentum * variance + (1 - momentum) * x.var((0, 1, 2))
        np.testing.assert_allclose(ops.convert_to_numpy(layer.moving_mean), mean, atol=1e-5)
        np.testing.assert_allclose(ops.convert_to_numpy(layer.moving_variance), variance, atol=1e-5)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_an_input_draws_what_a_constant_does(policy):
    x = np.ones((2, 40, 56, 20), "float32")
    constant, changing = (DropBlock2D(0.85, 5, seed=1, dtype=policy) for _ in range(2))
    fused.StepInput(changing.setting)
    for _ in range(2):
        a, b = (ops.convert_to_numpy(ops.cast(layer(x, training=True), "float32")) for layer in (constant, changing))
        assert ((a == 0) != (b == 0)).mean() < 1e-3  # if rounding changes a gap, the seeds after it move
    assert (ops.convert_to_numpy(changing(x, training=False)) == 1).all()


def test_a_stage_leaves_weights_and_files_as_they_are(tmp_path):
    model = small.build()
    names = [weight.path for weight in model.weights]
    set_stage(model, 0.9, 0.99)
    set_stage(model, momentum=0.95)
    assert [weight.path for weight in model.weights] == names
    assert {layer.momentum for layer in model.layers if isinstance(layer, layers.BatchNormalization)} == {0.95}
    model.save(tmp_path / "a.keras")
    again = keras.saving.load_model(tmp_path / "a.keras")
    for a, b in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert {layer.keep_prob for layer in again.layers if isinstance(layer, DropBlock2D)} == {0.9}


SHAPES = {"Const", "Shape", "StridedSlice", "Pack", "Cast", "Placeholder"}


@pytest.mark.skipif(BACKEND != "tensorflow", reason="of TensorFlow's kernels")
@pytest.mark.parametrize("changes", [False, True])
def test_no_index_arithmetic_stands_outside_a_compiled_kernel(changes):
    import tensorflow as tf

    layer = DropBlock2D(0.85, 5)
    if changes:
        layer.step_input = fused.StepInput(layer.setting)
    drop = tf.function(lambda x: layer(x, training=True))
    graph = drop.get_concrete_function(tf.TensorSpec((None, 32, 40, 20))).graph
    branches = [one.graph for one in map(graph._get_function, graph._functions)
                if not one.cached_definition.attr["_XlaMustCompile"].b]
    assert len(branches) >= changes
    found = {(one.type, output.dtype.name) for part in (graph, *branches)
             for one in part.get_operations() for output in one.outputs}
    assert ("StatelessRandomUniformV2", "float32") in found
    # TensorFlow keeps int32 on the host. Shapes may be there, arrays may not.
    assert {name for name, kind in found if kind == "int32"} <= SHAPES


@pytest.mark.skipif(BACKEND != "jax", reason="of JAX's export")
def test_the_step_lowers_for_gpus():
    import jax

    model = small.build(0.8)
    model.compile(keras.optimizers.Adam(1e-3), training_loss(Recipe()))
    set_stage(model, 0.9, 0.9)
    rng = np.random.default_rng(0)
    x, y = rng.random((2, 16, 24, 3), "float32"), rng.random((2, 16, 24, 1), "float32").round()
    model.train_on_batch(x, y)  # creates all variables
    state = [[variable.value for variable in variables] for variables in (
        model.trainable_variables, model.non_trainable_variables, model.optimizer.variables, model.metrics_variables)]
    step = jax.jit(model.train_step)
    for_gpu = jax.export.export(step, platforms=["cuda"])(state, (x, y)).mlir_module()
    assert not {"stablehlo.case", "stablehlo.if"} & set(for_gpu.split('"'))  # at a branch, a GPU waits for the host
