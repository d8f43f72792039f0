"""Computing in bfloat16 instead of float32, which is faster where the processor multiplies it natively."""

import sys
import weakref
from pathlib import Path

from vessels import UserError

REDUCED = weakref.WeakKeyDictionary()  # networks in bfloat16, by the networks in float32 whose weights they copy


def with_precision(model, mixed_precision=None):
    """`(network, name)`: `model`, or a copy that computes in bfloat16 with float32 weights; the name of its precision.

    Args:
        model: A `keras.Model`, or anything else with `predict_on_batch`, which stays as it is.
        mixed_precision: Whether to compute in bfloat16; by default, if this processor does so natively, TensorFlow is
            the backend, and no GPU is used.

    Raises:
        UserError: bfloat16 is asked for, and `model` is no `keras.Model`, which must be a functional one.
    """
    keras = sys.modules.get("keras")
    if not keras or not isinstance(model, keras.Model):
        if mixed_precision:
            raise UserError("mixed precision needs a network of Keras: leave it out")
        return model, "float32"
    if mixed_precision is False or (mixed_precision is None and not native_bfloat16(keras)):
        return model, "float32"
    if model not in REDUCED:
        REDUCED[model] = in_bfloat16(keras, model)
    REDUCED[model].set_weights(model.get_weights())
    return REDUCED[model], "bfloat16"


def native_bfloat16(keras):
    if keras.config.backend() != "tensorflow" or sys.modules["tensorflow"].config.list_physical_devices("GPU"):
        return False
    try:
        return "avx512_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # not on every system
        return False


def in_bfloat16(keras, model):
    def copy(layer):
        settings = layer.get_config()
        if layer is not model.layers[-1]:  # rounded to bfloat16, a probability of 0.999 would be 1
            settings["dtype"] = "mixed_bfloat16"
        return type(layer).from_config(settings)

    reduced = keras.models.clone_model(model, clone_function=copy)
    reduced.jit_compile = model.jit_compile
    return reduced
