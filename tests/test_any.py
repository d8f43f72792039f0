"""The general network's training: its patches, its data, and fine-tuning."""

import dataclasses
import json
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image
from test_custom import PAIRS, table
from test_training import arrays

import train_any
from vessels import UserError
from vessels.data import augmentation, custom, published, sources
from vessels.data.examples import Example
from vessels.data.fov import Widths
from vessels.data.images import checksum, read_mask, read_photograph
from vessels.files import sha256
from vessels.training.config import Recipe, main, parse

RECIPE = dataclasses.replace(train_any.RECIPE, network="small", mixed_precision=False)
FLAGS = ["--epochs", "1", "--steps-per-epoch", "2", "--batch-size", "2", "--patch-size", "56"]
SPLITS = [f"{pair},{split}" for pair, split in zip(PAIRS, ("train", "train", "validation", "test"), strict=True)]


def run(folder, *flags):
    flags = [*FLAGS, "--output-dir", str(folder), *flags]
    return main(sources.Several(widths=Widths((150,))), RECIPE, {}, "help", flags)


def read(*names, seed=0):
    return sources.Several(sources=tuple(map(str, names))).for_training(seed)


# ---- patches


def patches(*examples):
    return augmentation.AnyCameraPatches(examples, Recipe(patch_size=56, batch_size=8, steps_per_epoch=2))


def test_the_default_patches_are_those_of_the_released_network(retina):
    """Any change to scale, colour, light, sharpness or the black surround changes at least one of these numbers."""
    recipe = Recipe(patch_size=64, batch_size=8, steps_per_epoch=10, seed=3)
    batches = augmentation.AnyCameraPatches([retina], recipe)
    batches.epoch = 2
    x, y, _ = batches[4]
    means = [0.2299, 0.52, 0.1858, 0.4588, 0.3239, 0.5029, 0.169, 0.4431]
    assert x.mean((1, 2, 3)) == pytest.approx(means, abs=1e-3)
    assert (x == 0).mean((1, 2, 3)) == pytest.approx([0.3149, 0, 0.474, 0, 0.0008, 0, 0.4927, 0], abs=1e-3)
    spread = [0.1627, 0.0748, 0.1715, 0.0287, 0.0214, 0.0439, 0.0979, 0.0298]
    assert x.std((1, 2)).mean(1) == pytest.approx(spread, abs=5e-4)
    vessels = [0.0071, 0.0757, 0.0085, 0.0095, 0.002, 0.0034, 0.0112, 0.0051]
    assert y.mean((1, 2, 3)) == pytest.approx(vessels, abs=1e-3)


@pytest.mark.parametrize("wide", [300, 600])
def test_patches_show_the_field_of_view_as_wide_as_asked(wide):
    """The area of a disc in the patch shows the scale; a known diameter has priority over the visible one."""
    cv2.circle(disc := np.zeros((584, 565), "uint8"), (282, 292), 20, 1, -1)
    white = Example("disc", np.full((584, 565, 3), 200, "uint8"), disc > 0, disc > 0, diameter=500)
    strength = dataclasses.replace(augmentation.AnyCamera(), diameter=(wide, wide))
    recipe = Recipe(patch_size=200, batch_size=4, steps_per_epoch=1)
    _, y, _ = augmentation.AnyCameraPatches([white], recipe, strength)[0]
    assert y.sum() / 4 == pytest.approx(np.pi * (20 * wide / 500) ** 2, rel=0.1)


def test_large_photographs_are_scaled_down_to_save_memory(eye):
    large = dataclasses.replace(eye, image=cv2.resize(eye.image, (2825, 2920)), label=np.ones((2920, 2825), bool),
                                fov=np.ones((2920, 2825), bool))
    assert patches(large).planes[0].shape == (1875, 1814, 5)


def test_thin_vessels_outlive_a_smaller_scale():
    """A third as large, lines a pixel wide keep their share of the patch: smoothed, none would be left."""
    planes = np.zeros((900, 900, 5), "uint8")
    planes[::8, :, 3] = 255
    shares = [(augmentation.warp_patch(planes, augmentation.View((450, 450), 3, angle, 1), 128)[..., 3] >= 128).mean()
              for angle in np.linspace(0.1, 1.4, 20)]
    assert np.mean(shares) == pytest.approx(1 / 8, rel=0.05)


def test_vessels_count_as_their_set_says(eye):
    _, y, weight = patches(dataclasses.replace(eye, vessel_weight=1.5))[0]
    assert weight.dtype == np.float32
    np.testing.assert_array_equal(weight, 1 + 0.5 * y[..., 0])


# ---- training data


def test_sources_are_learned_from_in_their_order(data_root, root):
    mix = read("DRIVE", table(root, *SPLITS, header="image,label,split"), "chase")
    names = [example.name for example in mix.at(data_root).load("train")]
    assert names == [*published.DRIVE.splits["train"], "0", "1", *published.CHASEDB1.splits["train"]]
    assert mix.name == "DRIVE+mine+CHASEDB1"
    sums = mix.at(data_root).checksums("validation")
    assert sums["mine/images/2.png"] == sha256(root / "images/2.png") and "CHASEDB1/Image_09R.jpg" in sums
    assert not any("images/3.png" in name for name in sums)


@pytest.mark.parametrize(("names", "key"), [([], "any"), (["DRIVE", "CHASEDB1"], "any"), (["DRIVE"], "any-drive"),
                                            (["a/mine.csv", "DRIVE"], "any-mine-drive")])
def test_runs_are_named_by_what_they_learn_from(names, key):
    *_, arguments = parse(sources.Several(), RECIPE, {}, "help", names)
    assert arguments.output_dir.name == f"{key}-rsan-0"


def test_sources_that_do_not_go_together(root, tmp_path):
    with pytest.raises(UserError, match="STARE: no such data set; name DRIVE, CHASEDB1, HRF or a CSV"):
        read("STARE")
    path = str(table(root, *PAIRS))
    with pytest.raises(UserError, match="mine mine: one is given twice"):
        read(path, path)
    other = root / "other.csv"
    other.write_text(f"image,label,split\n{SPLITS[0]}\n")
    with pytest.raises(UserError, match=r"other\.csv, line 2: .*0\.png is also the image of .*mine\.csv"):
        read(path, other)


@pytest.mark.parametrize(("image", "label", "refused"), [
    ("eye.tif", "labels/0.png", r"eye\.tif is also DRIVE's 01_test"),
    ("eye.png", "labels/0.png", r"eye\.png is also DRIVE's 01_test"),
    ("eye.jpg", "01_manual1.gif", r"01_manual1\.gif is also DRIVE's 01_manual1"),
])
def test_a_photograph_of_drive_in_a_table_beside_drive_is_refused(image, label, refused, data_root, root):
    Image.open(data_root / "DRIVE/test/images/01_test.tif").save(root / image)
    shutil.copy(data_root / "DRIVE/test/1st_manual/01_manual1.gif", root)
    path = str(table(root, f"{image},{label}"))
    with pytest.raises(UserError, match=rf"mine\.csv, line 2: .*{refused}; remove one"):
        read(path, "DRIVE")


@pytest.mark.parametrize(("lines", "said"), [
    (PAIRS[:1], "for train: 0, but at least 2 must train"), (PAIRS[:2], "for train: 1"),
    ([f"{pair},test" for pair in PAIRS], "none of its 4 photographs has split train, all have test"),
    ([f"{pair},validation" for pair in PAIRS], "for train: 0")])
def test_too_few_to_train_on_is_said(lines, said, root, tmp_path, capsys):
    header = "image,label" + ",split" * (lines[0].count(",") > 1)
    assert run(tmp_path / "run", str(table(root, *lines, header=header))) == 2
    error = capsys.readouterr().err
    assert said in error and "mine.csv" in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


# ---- the whole way


@pytest.fixture(scope="module")
def trained(originals, tmp_path_factory):
    folder = tmp_path_factory.mktemp("any")
    shutil.copytree(originals, folder / "data")
    assert run(folder / "run", str(table(folder / "data", *PAIRS))) == 0
    return folder


def test_own_photographs_are_trained_on_and_recorded(trained):
    record = json.loads((trained / "run/final.json").read_text())
    assert record["dataset"] == "mine" and record["diameters"] == [150] and record["augmentation"]["jpeg"] == [40, 95]
    image, label = json.loads((trained / "run/config.json").read_text())["validation_sha256"]
    assert record["validation_sha256"].keys() == {image, label}
    held_out = image.removeprefix("mine/images/").removesuffix(".png")
    digests = {name: sha256(trained / "data/images" / f"{name}.png") for name in "0123"}
    assert {digests.pop(held_out), sha256(trained / f"data/labels/{held_out}.png")} == {
        *record["validation_sha256"].values()}
    assert set(digests.values()) == {digest for file, digest in record["data_sha256"].items() if "images" in file}
    assert record["recipe"]["recipe"] == "any" and 0 < record["threshold"] < 1
    assert set(record["pixels_sha256"].values()) == {
        checksum(read(trained / f"data/{folder}/{name}.png"))
        for folder, read in (("images", read_photograph), ("labels", read_mask)) for name in "0123"}


@pytest.mark.slow
def test_fine_tuning_starts_from_the_weights_named(trained, root, tmp_path):
    """With a tiny learning rate, a run ends close to where it starts."""
    start = tmp_path / "renamed.weights.h5"
    shutil.copy(trained / "run/final.weights.h5", start)
    shutil.copy(trained / "run/final.json", tmp_path / "renamed.json")
    path = str(table(root, *SPLITS, header="image,label,split"))
    flags = ["--start", str(start), "--learning-rate", "1e-9", "--keep-prob", "1"]
    assert run(tmp_path / "run", path, *flags) == 0
    before, after = arrays(start), arrays(tmp_path / "run/final.weights.h5")
    moved = [name for name in before if np.abs(before[name] - after[name]).max() > 1e-5]
    assert before and all("normalization" in name for name in moved)
    record = json.loads((tmp_path / "run/final.json").read_text())
    assert record["started_from"]["sha256"] == sha256(start)
    assert record["started_from"]["data_sha256"] == json.loads((trained / "run/final.json").read_text())["data_sha256"]


def test_weights_that_cannot_be_fine_tuned(trained, root, tmp_path, capsys):
    path = str(table(root, *SPLITS, header="image,label,split"))
    shutil.copytree(trained / "run", tmp_path / "start")
    start = tmp_path / "start/final.weights.h5"
    flags = path, "--start", str(start)
    assert run(tmp_path / "other", *flags, "--variant", "backbone") == 2
    assert f"{start}: belongs to rsan, not backbone; give --variant rsan" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
    start.with_name("final.json").rename(tmp_path / "start/away.json")
    assert run(tmp_path / "unknown", *flags) == 2
    assert "final.json: cannot be read" in capsys.readouterr().err
    start.unlink()
    assert run(tmp_path / "none", *flags) == 2
    assert "final.weights.h5: no such weights" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_synthetic_needs_no_photographs(tmp_path, capsys):
    assert run(tmp_path, "--synthetic") == 0
    assert json.loads((tmp_path / "final.json").read_text())["dataset"] == "synthetic"
    with pytest.raises(SystemExit):
        run(tmp_path, "mine.csv", "--synthetic")
    assert "leave mine.csv out" in capsys.readouterr().err


def test_tables_are_divided_by_the_runs_seed(root):
    path = table(root, *PAIRS)
    for seed in range(5):
        (part,) = read(path, seed=seed).parts
        assert part == custom.read(path).for_training(seed)
