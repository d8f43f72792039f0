"""One batch on several devices: in one process, in two, and after one of them was killed."""

import csv
import json
import os
import re
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
from conftest import ROOT
from test_rendezvous import free_addresses

from benchmarks.kills import epochs_done
from vessels import UserError
from vessels.training import distribution

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


def workers(launch, folder, *flags, other=()):
    """Two processes on this machine, the second with the flags `other` besides."""
    addresses = free_addresses(2)
    return [launch(folder, "--strategy", "multiworker", *flags, *more, TF_CONFIG=json.dumps(
        {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}))
        for index, more in enumerate(((), other))]


def finish(*processes):
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), "\n".join(outputs)
    return outputs


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


def test_two_devices_and_two_workers_learn_as_one_device(launch, tmp_path):
    outputs = finish(
        *workers(launch, tmp_path / "workers", *PATCHES),
        launch(tmp_path / "mirrored", "--strategy", "mirrored", *PATCHES, devices=2),
        launch(tmp_path / "one", *PATCHES),
    )
    assert_learned_alike(tmp_path / "mirrored", tmp_path / "one")
    assert_learned_alike(tmp_path / "workers", tmp_path / "one")
    assert json.loads((tmp_path / "workers" / "environment.json").read_text(encoding="utf-8"))["replicas"] == 2
    assert ["validation inside" in output for output in outputs] == [True, False, True, True]


def test_a_dead_worker_is_reported_and_the_run_resumes(launch, tmp_path):
    """The second worker dies after one epoch, and the chief after another."""
    flags = ("--keep-prob", "0.9")
    undisturbed = workers(launch, tmp_path / "undisturbed", *flags)
    for done, dead in ((1, 1), (2, 0)):
        pair = workers(launch, tmp_path / "killed", *flags)
        end = time.monotonic() + 200
        while epochs_done(tmp_path / "killed") < done and time.monotonic() < end:
            time.sleep(0.05)
        pair[dead].kill()
        output = pair[1 - dead].communicate(timeout=300)[0]
        assert pair[1 - dead].returncode == 2, output
        assert "if a worker is gone" in output and "Traceback" not in output, output
    assert "epochs 3 to 3" in finish(*workers(launch, tmp_path / "killed", *flags))[0]
    finish(*undisturbed)
    assert losses(tmp_path / "killed") == losses(tmp_path / "undisturbed")
    with h5py.File(tmp_path / "killed" / "final.weights.h5") as found, \
            h5py.File(tmp_path / "undisturbed" / "final.weights.h5") as wanted:
        wanted.visititems(lambda name, item: np.testing.assert_array_equal(item, found[name])
                          if isinstance(item, h5py.Dataset) else None)


def test_the_command_for_several_machines_runs_as_printed(tmp_path):
    """Runs the command in benchmarks/README.md on free ports; a `python` script adds flags that make it short."""
    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    command = next(block for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) if "TF_CONFIG" in block)
    for port, address in zip(("2222", "2223"), free_addresses(2), strict=True):
        command = command.replace(port, address.rpartition(":")[2])
    python = tmp_path / "python"
    flags = f'--variant backbone --epochs 1 --steps-per-epoch 2 --output-dir "{tmp_path}/run"'
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@" {flags}\n')
    python.chmod(0o755)
    done = subprocess.run(["bash", "-c", command + "\nwait"], cwd=ROOT, capture_output=True, text=True, timeout=600,
                          env={**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"})
    assert (tmp_path / "run" / "final.json").exists(), done.stdout + done.stderr
    assert json.loads((tmp_path / "run" / "environment.json").read_text(encoding="utf-8"))["replicas"] == 2


def test_workers_with_other_flags_are_refused(launch, tmp_path):
    chief, other = workers(launch, tmp_path, "--variant", "backbone", other=("--seed", "1"))
    output = chief.communicate(timeout=300)[0]
    assert chief.returncode == 2 and "give all of them the same command" in output, output
    other.communicate(timeout=300)
    assert other.returncode != 0


DROPBLOCK = """
import json
import numpy as np
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
from vessels.training import distribution
from dropblock import DropBlock2D
engine = distribution.start("mirrored", [4])
with engine.scope():
    layer = DropBlock2D(0.85)
engine.part_random_streams([layer.seed_generator.state])
run = tf.function(lambda: layer(tf.ones((2, 64, 64, 8)), training=True))
draws = np.array([[part.numpy() for part in engine.strategy.run(run).values] for _ in range(20)])
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


@pytest.mark.parametrize("config", [None, "{", '{"cluster": {"worker": ["a:1"]}}', json.dumps(
    {"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}), json.dumps(
    {"cluster": {"worker": ["no port"]}, "task": {"type": "worker", "index": 0}})])
def test_workers_without_a_cluster_are_refused(config, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if config:
        monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(UserError, match="needs TF_CONFIG"):
        distribution.start("multiworker", [4])


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
