"""Differences to the backbone, on invented scores whose intervals are known."""

import numpy as np
import pytest
from test_report import write

from vessels.report import ablation

IMAGES = [f"{i:02d}_test" for i in range(1, 21)]


@pytest.fixture
def network(tmp_path):
    """`network(variant, ...)` writes metrics.json; `f1` and `auc`: one value for all images, or one for each."""
    def network(variant="rsan", end="", f1=0.8, auc=0.98, images=IMAGES, dataset="DRIVE"):
        scores = zip(*(np.broadcast_to(value, len(images)).tolist() for value in (f1, auc)), strict=True)
        write(tmp_path, variant + end, {
            "dataset": dataset, "variant": variant.removeprefix("any_"),
            "per_image": [{"image": name, "inside_fov": {"f1": one, "auc": other}}
                          for name, (one, other) in zip(images, scores, strict=True)]})

    return network


def test_interval_over_images_is_that_of_coin_tosses():
    # The mean of 20 draws of +1 or -1: the binomial distribution leaves 2.5 % outside of -0.4 to 0.4 on either side.
    tosses = np.where(np.arange(20) % 2, 1.0, -1.0)
    hard = np.linspace(0, 50, 20)  # images that are hard for both networks cancel, as images are paired
    assert ablation.difference(tosses[None] + hard, hard[None]) == pytest.approx((0, -0.4, 0.4))


@pytest.mark.parametrize(("ours", "backbone", "expected"), [
    ([1, -1], [0], (0, -1, 1)),  # two trainings with a difference of 2: either may be drawn twice
    ([0], [1, -1], (0, -1, 1)),
    ([0, 0, 3], [0], (1, 0, 3)),  # 3 is drawn three times in one of 27 cases
    ([1], [0], (1, 1, 1)),
])
def test_interval_covers_trainings(ours, backbone, expected):
    sides = (np.repeat(np.array(side, float)[:, None], 8, axis=1) for side in (ours, backbone))
    assert ablation.difference(*sides) == pytest.approx(expected)


def test_every_two_networks_of_a_recipe_are_compared(network, tmp_path):
    for end in ("", "_seed1"):
        network("rsan", end, f1=np.linspace(0.801, 0.803, 20))
    network("backbone")
    network("backbone_dropblock", f1=0.801)
    network("rsan", "_authors", f1=0.7)
    network("backbone", "_authors", f1=0.75)
    network("backbone", dataset="CHASEDB1", images=IMAGES[:8], auc=0.97)
    network("rsan", dataset="CHASEDB1", images=IMAGES[:8])
    network("attention", dataset="CHASEDB1", images=IMAGES[:8])  # a variant whose name sorts before "backbone"
    for variant, end in (("rsan", "_of_CHASEDB1"), ("rsan", "_tta"), ("any_rsan", "")):
        network(variant, end, f1=0.1)
    rows = ablation.comparisons(tmp_path)
    assert [row[:4] + row[6:] for row in rows] == [
        ["rsan", "backbone_dropblock", "DRIVE", "default", "2", "1"],
        ["rsan", "backbone", "DRIVE", "default", "2", "1"],
        ["backbone_dropblock", "backbone", "DRIVE", "default", "1", "1"],
        ["rsan", "backbone", "DRIVE", "authors'", "1", "1"], ["rsan", "attention", "CHASE DB1", "default", "1", "1"],
        ["rsan", "backbone", "CHASE DB1", "default", "1", "1"],
        ["attention", "backbone", "CHASE DB1", "default", "1", "1"]]
    assert rows[1][4].startswith("+2.00 [+1.") and rows[0][4].startswith("+1.00 [+0.")
    assert rows[2][4:6] == ["+1.00 [+1.00, +1.00]", "+0.00 [+0.00, +0.00]"]
    assert rows[3][4] == "-50.00 [-50.00, -50.00]" and rows[5][5] == "+10.00 [+10.00, +10.00]"


def test_one_network_is_compared_with_nothing(network, tmp_path):
    network()
    assert ablation.markdown(tmp_path) == ""
