"""Compares the time for a folder with the network's own time: all other work should run in parallel to the network.

    python benchmarks/folder.py                  photographs of 2, 8 and 15 megapixels, half an hour on two cores
    python benchmarks/folder.py --photographs 10

Run it on an otherwise idle machine. The photographs are copies of scikit-image's, each with different noise. "network"
is the time in the network alone, one photograph after another, without parallel work.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
WEIGHTS = ROOT / "weights/any_rsan.weights.h5"

from vessels.data.fov import Widths  # noqa: E402
from vessels.data.images import EXAMPLE, read_photograph  # noqa: E402
from vessels.prediction import photographs  # noqa: E402
from vessels.prediction.folders import Table  # noqa: E402
from vessels.prediction.maps import predict_photograph  # noqa: E402

from pretrained import load_network, read_record  # noqa: E402
from rsan_model import build_rsan, load_weights  # noqa: E402


class Timed:
    """A network that adds up its own time."""

    def __init__(self, model):
        self.model, self.seconds = model, 0

    def predict_on_batch(self, x):
        began = time.perf_counter()
        maps = np.asarray(self.model.predict_on_batch(x))
        self.seconds += time.perf_counter() - began
        return maps


def write_photographs(folder, count, megapixels):
    image, rng = read_photograph(EXAMPLE), np.random.default_rng(0)
    factor = (megapixels * 1e6 / image[..., 0].size) ** 0.5
    image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)[..., ::-1]
    for i in range(count):
        noisy = np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype("uint8")
        cv2.imwrite(str(folder / f"{i:03}.jpg"), noisy)
    return sorted(folder.iterdir())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=int, default=100, help="how many (default: 100)")
    count = parser.parse_args().photographs
    rows = []
    for megapixels in (2, 8, 15):
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            (folder / "in").mkdir()
            paths = write_photographs(folder / "in", count, megapixels)
            record = read_record(WEIGHTS)
            widths = Widths.of_record(record)
            network = Timed(load_network(build_rsan, load_weights, WEIGHTS, record))
            predict_photograph(network, read_photograph(paths[0]), widths)  # builds the graph
            network.seconds, alone = 0, paths[:20]
            for path in alone:
                predict_photograph(network, read_photograph(path), widths)
            own = network.seconds / len(alone)
            table = Table(folder / "out", photographs.HEADER, photographs.Options(widths).made(WEIGHTS, record))
            writer = photographs.Writer(network.model, photographs.Options(widths), table)
            began = time.perf_counter()
            photographs.predict_all(writer, paths)
            each = (time.perf_counter() - began) / count
            rows.append(f"| {megapixels} megapixels | {own:.2f} s | {each:.2f} s | {each / own:.2f} |")
    print("| photographs | network | each in a folder | ratio |\n| --- | --- | --- | --- |")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
