"""Differences to the backbone, on invented scores whose intervals are known."""

import json

import numpy as np
import pytest

from vessels import UserError
from vessels.report import ablation

IMAGES = [f"{i:02d}_test" for i in range(1, 21)]


def result(variant="rsan", seed=0, f1=0.8, auc=0.98, images=IMAGES, dataset="DRIVE", recipe="", **changes):
    """`(folder, metrics.json)` of a network; `f1` and `auc`: one value for all images, or one for each."""
    scores = zip(*(np.broadcast_to(value, len(images)).tolist() for value in (f1, auc)), strict=True)
    folder = f"{variant}{recipe}{f'_seed{seed}' if seed else ''}"
    return changes.get("folder", folder), {
        "dataset": dataset, "variant": variant,
        "per_image": [{"image": name, "inside_fov": {"f1": one, "auc": other}}
                      for name, (one, other) in zip(images, scores, strict=True)]}


@pytest.fixture
def write(tmp_path):
    """`write(*results)` -> the results folder."""
    def write(*results):
        for folder, metrics in results:
            path = tmp_path / metrics["dataset"] / folder / "metrics.json"
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps(metrics))
        return tmp_path

    return write


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


def test_every_two_networks_of_a_recipe_are_compared(write):
    better = np.linspace(0.801, 0.803, 20)
    folder = write(
        result(f1=better), result(seed=1, f1=better), result("backbone"), result("backbone_dropblock", f1=0.801),
        result(recipe="_authors", f1=0.7), result("backbone", recipe="_authors", f1=0.75),
        result("backbone", dataset="CHASEDB1", images=IMAGES[:8], auc=0.97),
        result(dataset="CHASEDB1", images=IMAGES[:8]),
        *(result(f1=0.1, folder=folder) for folder in ("rsan_of_CHASEDB1", "rsan_tta", "any_rsan")),
    )
    rows = ablation.comparisons(folder)
    assert [row[:4] + row[6:] for row in rows] == [
        ["rsan", "backbone_dropblock", "DRIVE", "default", "2", "1"],
        ["rsan", "backbone", "DRIVE", "default", "2", "1"],
        ["backbone_dropblock", "backbone", "DRIVE", "default", "1", "1"],
        ["rsan", "backbone", "DRIVE", "authors'", "1", "1"], ["rsan", "backbone", "CHASE DB1", "default", "1", "1"]]
    assert rows[1][4].startswith("+2.00 [+1.") and rows[0][4].startswith("+1.00 [+0.")
    assert rows[2][4:6] == ["+1.00 [+1.00, +1.00]", "+0.00 [+0.00, +0.00]"]
    assert rows[3][4] == "-50.00 [-50.00, -50.00]" and rows[4][5] == "+10.00 [+10.00, +10.00]"


def test_images_in_another_order_are_paired_all_the_same(write):
    f1 = np.linspace(0.7, 0.9, 20)
    folder = write(result(f1=f1[::-1], images=IMAGES[::-1]), result("backbone", f1=f1))
    assert ablation.comparisons(folder)[0][4] in ("+0.00 [+0.00, +0.00]", "-0.00 [-0.00, +0.00]")


def test_other_images_are_no_comparison(write):
    folder = write(result(), result("backbone", images=[*IMAGES[:19], "21_test"]))
    with pytest.raises(UserError, match="DRIVE: rsan and backbone were scored on different images"):
        ablation.comparisons(folder)


def test_without_a_backbone_there_is_nothing_to_say(write):
    assert ablation.markdown(write(result(), result(seed=1))) == ""
