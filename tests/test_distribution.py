"""One batch on several devices."""

import csv
import json
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest
from conftest import ROOT

pytestmark = pytest.mark.slow
PATCHES = ("--recipe", "patches", "--epochs", "2", "--steps-per-epoch", "3", "--patch-size", "56", "--keep-prob", "1")


@pytest.fixture
def launch():
    """`launch(folder, *flags)` starts `tiny_training.py`; processes that still run when the test ends are killed."""
    processes = []

    def start(folder, *flags, devices=1, **environment):
        processes.append(subprocess.Popen(
            [sys.executable, ROOT / "tests" / "tiny_training.py", str(devices), "--output-dir", folder, *flags],
            env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


def finish(*processes):
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), "\n".join(outputs)


def losses(folder):
    with (folder / "history.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def moments(folder):
    """Adam's moments: they show the scale of the gradients, on which the weights do not depend."""
    with h5py.File(folder / "latest.weights.h5") as file:
        stored = file["optimizer/vars"]
        return np.concatenate([stored[key][()].ravel() for key in stored if stored[key].ndim])


def assert_learned_alike(folder, reference):
    np.testing.assert_allclose(losses(folder), losses(reference), atol=1e-4)
    found, wanted = moments(folder), moments(reference)
    assert np.linalg.norm(found - wanted) < 0.05 * np.linalg.norm(wanted)


def test_two_devices_learn_as_one(launch, tmp_path):
    finish(
        launch(tmp_path / "mirrored", "--strategy", "mirrored", *PATCHES, devices=2),
        launch(tmp_path / "one", *PATCHES),
    )
    assert_learned_alike(tmp_path / "mirrored", tmp_path / "one")
    assert json.loads((tmp_path / "mirrored" / "environment.json").read_text(encoding="utf-8"))["replicas"] == 2


DROPBLOCK = """
import json
import numpy as np
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
from vessels.training import distribution
from dropblock import DropBlock2D
scope, _ = distribution.start("mirrored", [4])
with scope():
    layer = DropBlock2D(0.85)
    distribution.part_random_streams([layer.seed_generator.state])
    strategy = tf.distribute.get_strategy()
run = tf.function(lambda: layer(tf.ones((2, 64, 64, 8)), training=True))
draws = np.array([[part.numpy() for part in strategy.run(run).values] for _ in range(20)])
kept = draws > 0
print(json.dumps({"kept": kept.mean((0, 2, 3, 4, 5)).tolist(), "alike": float((kept[:, 0] == kept[:, 1]).mean()),
                  "mean": float(draws.mean())}))
"""


def test_each_device_drops_blocks_of_its_own():
    done = subprocess.run([sys.executable, "-c", DROPBLOCK], cwd=ROOT, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["kept"] == pytest.approx([0.85, 0.85], abs=0.02)
    # Independent masks agree where both keep or both drop: .85 ** 2 + .15 ** 2.
    assert found["alike"] == pytest.approx(0.745, abs=0.03)
    assert found["mean"] == pytest.approx(1, abs=1e-4)


# There are eight synthetic images: of batches of three, the last holds two.
@pytest.mark.parametrize(("devices", "size", "uneven"), [(2, 5, 5), (3, 3, 2)])
def test_a_batch_that_devices_cannot_share_is_refused(devices, size, uneven, launch, tmp_path):
    process = launch(tmp_path, "--strategy", "mirrored", "--batch-size", str(size), devices=devices)
    output = process.communicate()[0]
    assert process.returncode == 2 and f"{devices} devices cannot share a batch of {uneven} evenly" in output


def test_jax_shares_batches_by_data_parallelism(launch, tmp_path):
    pytest.importorskip("jax", reason="needs JAX: pip install jax")
    flags, two = ("--keep-prob", "1"), {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    finish(
        launch(tmp_path / "one", *flags, KERAS_BACKEND="jax"),
        launch(tmp_path / "two", "--strategy", "mirrored", *flags, KERAS_BACKEND="jax", **two),
    )
    assert_learned_alike(tmp_path / "two", tmp_path / "one")
    assert json.loads((tmp_path / "two" / "environment.json").read_text(encoding="utf-8"))["replicas"] == 2
