"""Procedural photographs: exact, plausible, and the same on every run."""

import dataclasses

import numpy as np
import pytest

from vessels.data import published, synthetic
from vessels.data.fov import field_of_view
from vessels.prediction.maps import Prediction
from vessels.prediction.quality import doubts

SMALL = dataclasses.replace(published.DRIVE, size=(200, 184))


@pytest.mark.parametrize(("split", "count"), [("train", 8), ("test", 4), ("train+validation", 10)])
def test_counts_and_names(split, count):
    examples = synthetic.make(SMALL, split)
    assert len({example.name for example in examples}) == len(examples) == count
    assert examples[0].name == f"synthetic_{split.split('+')[0]}_01"


@pytest.mark.parametrize("dataset", [published.DRIVE, published.CHASEDB1], ids=lambda dataset: dataset.name)
def test_looks_like_the_data_set(dataset):
    for example in synthetic.make(dataset, "validation"):
        assert example.image.shape == (*dataset.size, 3) and example.image.dtype == np.uint8
        for mask in (example.label, example.second, example.fov):
            assert mask.shape == dataset.size and mask.dtype == bool
        assert 0.1 < example.label[example.fov].mean() < 0.17
        assert not example.label[~example.fov].any()
        assert example.image[~example.fov].mean() < 5 < example.image[example.fov].mean()


def test_the_estimated_field_of_view_is_right_and_nothing_is_doubted():
    for example in synthetic.make(published.DRIVE, "train"):
        fov, diameter = field_of_view(example.image)
        assert (fov != example.fov).mean() < 0.005
        assert not doubts(example.image, Prediction(example.label, fov, diameter, 1.0, 0.8), example.label)


def test_vessels_are_darker_than_what_is_around_them():
    for example in synthetic.make(published.DRIVE, "test"):
        green = example.image[..., 1].astype(float)
        near = np.zeros_like(example.label)
        for shift in (-6, 6):
            near |= np.roll(example.label, shift, axis=0) | np.roll(example.label, shift, axis=1)
        assert green[example.label].mean() < 0.93 * green[near & ~example.label & example.fov].mean()


def test_second_observer_agrees_but_not_fully():
    for example in synthetic.make(published.DRIVE, "test"):
        dice = 2 * (example.label & example.second).sum() / (example.label.sum() + example.second.sum())
        assert 0.7 < dice < 0.95


@pytest.mark.parametrize("seed", [0, 7])
def test_same_seed_same_images(seed):
    first, again = synthetic.make(SMALL, "test", seed), synthetic.make(SMALL, "test", seed)
    for a, b in zip(first, again, strict=True):
        for field in ("image", "label", "fov", "second"):
            np.testing.assert_array_equal(getattr(a, field), getattr(b, field))


def test_every_image_of_every_split_and_seed_is_another():
    examples = [example for seed in (0, 1) for split in ("validation", "test")
                for example in synthetic.make(SMALL, split, seed)]
    assert len({example.image.tobytes() for example in examples}) == len(examples)
    assert len({example.label.tobytes() for example in examples}) == len(examples)


@pytest.mark.parametrize("size", [(96, 88), (128, 128), (128, 300)])
def test_other_sizes(size):
    for example in synthetic.make(dataclasses.replace(SMALL, size=size), "validation"):
        assert example.image.shape == (*size, 3)
        assert 0.02 < example.label[example.fov].mean() < 0.25
