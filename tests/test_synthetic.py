"""Procedural photographs: exact, plausible, and the same on every run."""

import dataclasses
import json

import numpy as np
import pytest

import train_drive
from vessels.data import published, synthetic
from vessels.data.fov import field_of_view
from vessels.prediction.maps import Prediction
from vessels.prediction.quality import doubts
from vessels.training import config

SMALL = dataclasses.replace(published.DRIVE, size=(200, 184))


@pytest.mark.parametrize(("split", "count"), [("train", 8), ("test", 4), ("train+validation", 10)])
def test_counts_and_names(split, count):
    examples = synthetic.make(SMALL, split)
    assert len({example.name for example in examples}) == len(examples) == count
    assert examples[0].name == f"synthetic_{split.split('+')[0]}_01"


@pytest.mark.parametrize("size", [published.DRIVE.size, published.CHASEDB1.size, (128, 300), (96, 88)])
def test_a_shaded_disc_with_dark_vessels_and_two_observers(size):
    for example in synthetic.make(dataclasses.replace(SMALL, size=size), "validation"):
        assert example.image.shape == (*size, 3) and example.image.dtype == np.uint8
        for mask in (example.label, example.second, example.fov):
            assert mask.shape == size and mask.dtype == bool
        assert 0.1 < example.label[example.fov].mean() < 0.2
        assert not example.label[~example.fov].any() and example.image[~example.fov].mean() < 10
        green = example.image[..., 1].astype(float)
        assert green[example.label].mean() < 0.85 * green[example.fov & ~example.label].mean()
        assert 0.7 < 2 * (example.label & example.second).sum() / (example.label.sum() + example.second.sum()) < 0.95


def test_the_estimated_field_of_view_is_right_and_nothing_is_doubted():
    for example in synthetic.make(published.DRIVE, "train"):
        fov, diameter = field_of_view(example.image)
        assert (fov != example.fov).mean() < 0.005
        assert not doubts(example.image, Prediction(example.label, fov, diameter, 1.0, 0.8), example.label)


def test_every_split_has_its_own_images_which_are_the_same_each_time():
    first, again = (synthetic.make(SMALL, "train") + synthetic.make(SMALL, "test") for _ in range(2))
    for a, b in zip(first, again, strict=True):
        for field in ("image", "label", "fov", "second"):
            np.testing.assert_array_equal(getattr(a, field), getattr(b, field))
    for field in ("image", "label"):
        assert len({getattr(example, field).tobytes() for example in first}) == len(first)


@pytest.mark.slow
def test_a_training_on_them_learns(tmp_path):
    """In half the usual steps, RSAN reaches an F1 of about 0.74 on the validation images."""
    flags = ["--synthetic", "--steps-per-epoch", "40", "--output-dir", str(tmp_path)]
    assert config.main(published.DRIVE, train_drive.RECIPE, train_drive.AUTHORS, "help", flags) == 0
    assert json.loads((tmp_path / "final.json").read_text())["validation"]["val_f1"] > 0.65
