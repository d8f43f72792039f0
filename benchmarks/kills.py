"""Kills real training runs at random moments, and checks that each ends as if nothing had happened.

    python benchmarks/kills.py               50 kills, half an hour on two cores
    python benchmarks/kills.py --kills 3     as many as in the tests

A run is a command as a user gives it. It is killed with SIGKILL, SIGTERM or SIGINT while it starts, in the middle of
an epoch, or while it writes a checkpoint; the same command resumes it, until it is killed again. Each kill may cost at
most one epoch, and each run must end with the weights, optimizer, random streams and history of an undisturbed run,
bit by bit.
"""

import argparse
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import h5py
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
COMMAND = [sys.executable, str(ROOT / "train_drive.py")]
FLAGS = ("--synthetic", "--variant", "backbone_dropblock",  # with random streams, and faster to compile than RSAN
         "--epochs", "4", "--steps-per-epoch", "4", "--batch-size", "2", "--patch-size", "56")
WINDOWS = os.name == "nt"  # has no other signal to end a process
SIGNALS = (signal.SIGTERM,) if WINDOWS else (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
WRITING = f".{zlib.crc32(b'latest.weights.h5'):x}.*.partial"  # the checkpoint's temporary files in `write_atomically`
MOMENTS = ("start", "epoch", "checkpoint")


def start(folder):
    command = [*COMMAND, *FLAGS, "--output-dir", str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(process, condition, seconds=300):
    """Returns when `condition` holds or the process has ended."""
    end = time.monotonic() + seconds
    while process.poll() is None and not condition():
        if time.monotonic() > end:
            raise AssertionError(f"{' '.join(process.args)}: nothing happened in {seconds} s")
        time.sleep(0.0005)


def strike(folder, moment, number, rng):
    """Starts or resumes the run in `folder` and sends it the signal `number` at `moment`; False if it ended before."""
    before, left = epochs_done(folder), set(folder.glob(WRITING))
    process = start(folder)
    if moment == "start":
        time.sleep(rng.uniform(0, 8))
    elif moment == "epoch":
        wait_for(process, lambda: epochs_done(folder) > before)
        time.sleep(rng.uniform(0, 5))
    else:
        after = rng.randint(0, 1)
        wait_for(process, lambda: epochs_done(folder) >= before + after and set(folder.glob(WRITING)) - left)
    process.send_signal(number)
    output = process.communicate()[0]
    # Python exits with code 1 if Ctrl-C arrives during the imports.
    interrupted = number == signal.SIGINT and "KeyboardInterrupt" in output
    if process.returncode not in (0, -number, 130, 143, 1 if interrupted or WINDOWS else 0):
        raise AssertionError(f"exit code {process.returncode} after {number.name}:\n{output}")
    return process.returncode != 0


def epochs_done(folder):
    """Whole epochs in the checkpoint, which must be readable at any moment."""
    latest = folder / "latest.weights.h5"
    if not latest.exists():
        return 0
    with h5py.File(latest) as file:
        return len(json.loads(file.attrs["history"]))


def finish(folder):
    process = start(folder)
    output = process.communicate()[0]
    if process.returncode:
        raise AssertionError(f"exit code {process.returncode} in the end:\n{output}")


def contents(path):
    """All arrays of a checkpoint, its history without the seconds, and the states of its random streams: dict."""
    with h5py.File(path) as file:
        stored = {"history": [{**row, "seconds": None} for row in json.loads(file.attrs.get("history", "[]"))],
                 "random streams": file.attrs.get("random_states")}
        file.visititems(lambda name, item: stored.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
        return stored


def assert_same(folder, reference):
    for name in ("latest.weights.h5", "final.weights.h5"):
        np.testing.assert_equal(contents(folder / name), contents(reference / name))


def survive(folder, plan, rng):
    """Kills and resumes the run in `folder` as in `plan`, `[(moment, signal)]`; returns how many kills hit."""
    # A process that a shell starts in the background ignores SIGINT, and its child processes would too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    kills = 0
    for moment, number in plan:
        before = epochs_done(folder)
        if not strike(folder, moment, number, rng):
            break
        kills += 1
        after = epochs_done(folder)
        print(f"{folder.name}: {number.name} at {moment}: {before} epochs before it, {after} after it", flush=True)
        if after < before:
            raise AssertionError(f"{folder}: epochs are lost")
    finish(folder)
    return kills


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="number of kills (default: 50)")
    wanted = parser.parse_args().kills
    rng, kills = random.Random(0), 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        finish(folder / "undisturbed")
        for run in itertools.count(1):
            plan = [(rng.choice(MOMENTS), rng.choice(SIGNALS)) for _ in range(min(4, wanted - kills))]
            kills += survive(folder / f"run {run}", plan, rng)
            assert_same(folder / f"run {run}", folder / "undisturbed")
            print(f"run {run} ended as the undisturbed run, bit by bit; {kills} kills", flush=True)
            if kills >= wanted:
                break


if __name__ == "__main__":
    main()
