"""Training runs that are killed, and disks that are full."""

import os
import random
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import ROOT

from benchmarks import kills

pytestmark = pytest.mark.slow
# train_drive.py with a network that compiles in a seventh of the time. Files stay half-written for longer, because its
# checkpoints are so small that no kill would hit one.
TRAIN = """
import dataclasses, sys, time
import train_drive
from vessels import files
from vessels.data import published
from vessels.training import config

rename = files.replace
files.replace = lambda *paths: (time.sleep(0.05), rename(*paths))
recipe = dataclasses.replace(train_drive.RECIPE, network="small")
sys.exit(config.main(published.DRIVE, recipe, {}, "", sys.argv[1:]))
"""
PLAN = list(zip(("epoch", "checkpoint", "start"), 3 * kills.SIGNALS, strict=False))


def test_a_killed_run_ends_in_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr(kills, "COMMAND", [sys.executable, "-c", TRAIN])
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{ROOT / 'tests'}")
    with ThreadPoolExecutor() as pool:
        undisturbed = pool.submit(kills.finish, tmp_path / "undisturbed")
        assert kills.survive(tmp_path / "killed", PLAN, random.Random(1)) == len(PLAN)
        undisturbed.result()
    kills.assert_same(tmp_path / "killed", tmp_path / "undisturbed")


def test_a_full_disk_is_said_and_the_checkpoint_stays(tmp_path):
    place = tmp_path / "small"
    place.mkdir()
    if not shutil.which("mount") or not hasattr(os, "geteuid") or os.geteuid():
        pytest.skip("only root can mount a small disk")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=21m", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no right to mount a small disk: {mounted.stderr.decode().strip()}")
    try:
        # A checkpoint is 13 MB, the final weights 4 MB: the first epoch fits, a second checkpoint beside it does not.
        process = kills.start(place / "run")
        output = process.communicate()[0]
        assert process.returncode == 2, output
        assert "cannot be written (No space left on device); make room" in output and "Traceback" not in output
        assert kills.epochs_done(place / "run") == 1
        assert not list((place / "run").glob(kills.WRITING))
    finally:
        subprocess.run(["umount", str(place)], check=True)
