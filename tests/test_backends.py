"""The layers, the released weights and three training steps on Keras' other backends, the latter against TensorFlow."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT

from vessels.data import images, published
from vessels.prediction import maps

pytestmark = pytest.mark.slow
# Runs on any backend; prints nothing, writes what it found.
SCRIPT = """
import sys
import numpy as np
import keras
from dropblock import DropBlock2D
from rsan_model import build_rsan, load_weights
from vessels.prediction.maps import predict_image
from vessels.record import full_float32

def rounds_to_tf32():
    if keras.config.backend() == "jax":
        import jax
        return jax.config.jax_default_matmul_precision not in ("highest", "float32")
    if keras.config.backend() == "torch":
        import torch
        return torch.backends.cudnn.allow_tf32
    import tensorflow
    return tensorflow.config.experimental.tensor_float_32_execution_enabled()

rounds = [rounds_to_tf32()]
with full_float32(), full_float32():
    rounds.append(rounds_to_tf32())
rounds.append(rounds_to_tf32())
given = np.load(sys.argv[1])
model = build_rsan(keep_prob=1)
load_weights(model, "weights/drive_rsan.weights.h5")
probability = predict_image(model, given["image"], 592)
before = [keras.ops.convert_to_numpy(weight) for weight in model.trainable_weights]
model.compile(keras.optimizers.SGD(3e-4), "binary_crossentropy")
losses = [float(model.train_on_batch(x, y)) for x, y in zip(given["x"], given["y"])]
learned = [keras.ops.convert_to_numpy(weight) - old for weight, old in zip(model.trainable_weights, before)]
dropped = keras.ops.convert_to_numpy(DropBlock2D(0.85, seed=0)(np.ones((8, 96, 96, 16), "float32"), training=True))
np.savez(sys.argv[2], probability=probability, losses=losses,
         learned=np.concatenate([change.ravel() for change in learned]),
         kept=(dropped > 0).mean(), mean=dropped.mean(), rounds=rounds)
"""


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A photograph (of DRIVE if available, else scikit-image's, reduced) and three batches."""
    root = Path(os.environ.get("RSAN_DATA_ROOT", ROOT / "data")) / "DRIVE"
    image = (published.DRIVE.at(root).load("test")[0].image if root.is_dir()
             else maps.resize(images.read_photograph(images.EXAMPLE), 565, 584))
    green = image[..., 1].astype("float32")
    darker = cv2.GaussianBlur(green, (0, 0), 8) - green > 8  # replaces labels, if there are none
    x, y = (np.stack([[array[row : row + 64, left : left + 64] for left in (200, 280)] for row in (180, 240, 300)])
            for array in (image.astype("float32") / 255, darker[..., None].astype("float32")))
    path = tmp_path_factory.mktemp("backends") / "given.npz"
    np.savez(path, image=image, x=x, y=y)
    return path


def outcome(backend, given):
    path = given.with_name(f"{backend}.npz")
    if not path.exists():
        done = subprocess.run([sys.executable, "-c", SCRIPT, given, path], cwd=ROOT, capture_output=True, text=True,
                              env={**os.environ, "KERAS_BACKEND": backend})
        assert done.returncode == 0, done.stderr
    return np.load(path)


@pytest.fixture(params=["jax", "torch"])
def backend(request):
    if not importlib.util.find_spec(request.param):
        pytest.skip(f"needs {request.param}: pip install {request.param}")
    return request.param


def test_layers_pass_their_tests(backend):
    done = subprocess.run([sys.executable, "-m", "pytest", "-n0", "-m", "slow or not slow", "tests/test_layers.py",
                           "tests/test_stage.py", "-k", "not settings"], cwd=ROOT,
                          capture_output=True, text=True, env={**os.environ, "KERAS_BACKEND": backend})
    assert done.returncode == 0, done.stdout


def test_other_backends_agree_with_tensorflow(backend, given):
    found, wanted = outcome(backend, given), outcome("tensorflow", given)
    for name in ("probability", "losses"):
        np.testing.assert_allclose(found[name], wanted[name], atol=1e-4, err_msg=name)
    assert np.linalg.norm(found["learned"] - wanted["learned"]) < 0.01 * np.linalg.norm(wanted["learned"])
    assert found["rounds"].tolist() == wanted["rounds"].tolist() == [True, False, True]
    # The blocks of 128 maps: their share varies by 0.003.
    assert float(found["kept"]) == pytest.approx(0.85, abs=0.012) and float(found["mean"]) == pytest.approx(1, abs=1e-4)
