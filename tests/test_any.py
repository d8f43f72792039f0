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
from vessels.training.config import main, parse

RECIPE = dataclasses.replace(train_any.RECIPE, network="small", mixed_precision=False)
FLAGS = ["--epochs", "1", "--steps-per-epoch", "2", "--batch-size", "2", "--patch-size", "56"]
SPLITS = [f"{pair},{split}" for pair, split in zip(PAIRS, ("train", "train", "validation", "test"), strict=True)]


def run(folder, *flags):
    flags = [*FLAGS, "--output-dir", str(folder), *flags]
    return main(sources.Several(widths=Widths((150,))), RECIPE, {}, "help", flags)


def read(*names, seed=0):
    return sources.Several(sources=tuple(map(str, names))).for_training(seed)


# ---- patches


def patches(examples, **strength):
    strength = dataclasses.replace(augmentation.ANY_CAMERA, **strength)
    return augmentation.AnyCameraPatches(examples, 56, 8, 2, strength=strength)


def test_batches_depend_on_seed_epoch_and_index_alone(eye):
    def batch(seed, epoch, index):
        return augmentation.AnyCameraPatches([eye], 56, 2, 3, seed, epoch)[index][0]

    assert (batch(1, 2, 0) == batch(1, 2, 0)).all()
    for other in ((2, 2, 0), (1, 3, 0), (1, 2, 1)):
        assert (batch(1, 2, 0) != batch(*other)).any()


def test_the_default_patches_are_those_of_the_released_network(eye):
    """Any change to scale, colour, light, sharpness or the black surround changes at least one of these numbers."""
    x, y, _ = augmentation.AnyCameraPatches([eye], 64, 8, 10, seed=3, epoch=2)[4]
    means = [0.1581, 0.2438, 0.2162, 0.4908, 0.4945, 0.5239, 0.336, 0.4544]
    assert x.mean((1, 2, 3)) == pytest.approx(means, abs=1e-3)
    assert (x == 0).mean((1, 2, 3)) == pytest.approx([0.2434, 0.3628, 0.2862, 0, 0, 0, 0.1952, 0], abs=1e-3)
    spread = [0.0959, 0.1877, 0.1176, 0.0347, 0.0809, 0.0629, 0.117, 0.0577]
    assert x.std((1, 2)).mean(1) == pytest.approx(spread, abs=5e-4)
    vessels = [0.0857, 0.1306, 0.0457, 0.0911, 0.1726, 0, 0.0076, 0.2126]
    assert y.mean((1, 2, 3)) == pytest.approx(vessels, abs=2e-3)


def test_image_and_label_move_together(eye):
    """Photographs that show their label, so that a patch of any scale, angle and colour must show its label."""
    shown = Example("label", np.dstack([np.where(eye.label, 40, 200).astype("uint8")] * 3), eye.label, eye.fov)
    x, y, _ = patches([shown], blur=(0, 0), noise=(0, 0), slope=(0, 0))[0]
    assert x.dtype == y.dtype == np.float32
    assert x.shape == (8, 56, 56, 3) and y.shape == (8, 56, 56, 1)
    assert set(np.unique(y)) <= {0, 1} and x.min() >= 0 and x.max() <= 1
    for image, label in zip(x[..., 1], y[..., 0], strict=True):
        inside = image > 0.02
        if 0.05 < label[inside].mean() < 0.95:
            assert np.corrcoef(image[inside], label[inside])[0, 1] < -0.7


@pytest.mark.parametrize("wide", [300, 600, 1200])
def test_patches_show_the_field_of_view_as_wide_as_asked(wide, eye):
    """The area of a disc in the patch shows the scale; a known diameter has priority over the visible one."""
    fov = np.zeros_like(eye.fov)
    cv2.circle(view := fov.astype("uint8"), (282, 292), 20, 1, -1)
    white = Example("disc", np.full_like(eye.image, 200), view > 0, np.ones_like(fov), diameter=500)
    strength = dataclasses.replace(augmentation.ANY_CAMERA, diameter=(wide, wide))
    _, y, _ = augmentation.AnyCameraPatches([dataclasses.replace(white, fov=view > 0)], 200, 4, 1, strength=strength)[0]
    assert y.sum() / 4 == pytest.approx(np.pi * (20 * wide / 500) ** 2, rel=0.1) or wide > 600


def test_outside_the_field_of_view_is_black(eye):
    bright = dataclasses.replace(eye, image=np.full_like(eye.image, 200))
    x, *_ = patches([bright], noise=(0, 0), blur=(0, 0), jpeg=(95, 95))[0]
    assert (x == 0).all(axis=-1).any() and x.max() > 0.3


def test_large_photographs_are_scaled_down_to_save_memory(eye):
    large = dataclasses.replace(eye, image=cv2.resize(eye.image, (2825, 2920)), label=np.ones((2920, 2825), bool),
                                fov=np.ones((2920, 2825), bool))
    assert patches([large, eye]).examples[0].image.shape == (1875, 1814, 3)
    assert patches([large, eye]).examples[1] is eye


def test_thin_vessels_outlive_a_smaller_scale():
    """A third as large, lines a pixel wide keep their share of the patch: smoothed, none would be left."""
    planes = np.zeros((900, 900, 5), "uint8")
    planes[::8, :, 3] = 255
    shares = [(augmentation.warp_patch(planes, (450, 450), 128, 3, angle, 1)[..., 3] >= 128).mean()
              for angle in np.linspace(0.1, 1.4, 20)]
    assert np.mean(shares) == pytest.approx(1 / 8, rel=0.05)


@pytest.mark.parametrize("vessel_weight", [1.0, 0.85, 1.5])
def test_vessels_count_as_their_set_says(vessel_weight, eye):
    _, y, weight = patches([dataclasses.replace(eye, vessel_weight=vessel_weight)])[0]
    assert weight.dtype == np.float32
    np.testing.assert_array_equal(weight, np.where(y[..., 0] == 1, np.float32(vessel_weight), 1))


def test_each_sets_vessel_weight_reaches_its_examples(data_root):
    for dataset in (published.DRIVE, published.CHASEDB1):
        found = {example.vessel_weight for example in dataset.at(data_root / dataset.name).load("validation")}
        assert found == {dataset.vessel_weight} != {1}


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
    _, _, folder, *_ = parse(sources.Several(), RECIPE, {}, "help", names)
    assert folder.name == f"{key}-rsan-0"


def test_sources_that_do_not_go_together(root, tmp_path):
    with pytest.raises(UserError, match="STARE: no such data set; name DRIVE, CHASEDB1, HRF or a CSV"):
        read("STARE")
    path = str(table(root, *PAIRS))
    with pytest.raises(UserError, match="mine: given twice"):
        read(path, path)
    other = root / "other.csv"
    other.write_text(f"image,label,split\n{SPLITS[0]}\n")
    with pytest.raises(UserError, match=r"other\.csv, line 2: .*0\.png is the same file as the image of .*mine\.csv"):
        read(path, other)


@pytest.mark.parametrize(("image", "label", "refused"), [
    ("eye.tif", "labels/0.png", r"eye\.tif is DRIVE's 01_test"),
    ("eye.png", "labels/0.png", r"eye\.png is DRIVE's 01_test"),
    ("eye.jpg", "01_manual1.gif", r"01_manual1\.gif is DRIVE's 01_manual1"),
])
def test_a_photograph_of_drive_in_a_table_beside_drive_is_refused(image, label, refused, data_root, root):
    Image.open(data_root / "DRIVE/test/images/01_test.tif").save(root / image)
    shutil.copy(data_root / "DRIVE/test/1st_manual/01_manual1.gif", root)
    path = str(table(root, f"{image},{label}"))
    with pytest.raises(UserError, match=rf"mine\.csv, line 2: .*{refused}; remove one"):
        read(path, "DRIVE")


@pytest.mark.parametrize(("lines", "message"), [
    (PAIRS[:1], "photographs to learn from: 0, at least 2 needed"),
    (PAIRS[:2], "photographs to learn from: 1, at least 2 needed, and another that validates"),
    ([f"{pair},test" for pair in PAIRS], "none of its 4 photographs has split train, all have test"),
    ([f"{pair},validation" for pair in PAIRS], "photographs to learn from: 0"),
])
def test_too_few_to_train_on_is_said(lines, message, root, tmp_path, capsys):
    header = "image,label" + ",split" * (lines[0].count(",") > 1)
    assert run(tmp_path / "run", str(table(root, *lines, header=header))) == 2
    error = capsys.readouterr().err
    assert message in error and "mine.csv" in error and error.count("\n") == 1
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
    assert record["recipe"]["recipe"] == "any"
    assert set(record["pixels_sha256"].values()) == {
        checksum(read(trained / f"data/{folder}/{name}.png"))
        for folder, read in (("images", read_photograph), ("labels", read_mask)) for name in "0123"}


@pytest.mark.slow
def test_fine_tuning_starts_from_the_weights_named(trained, root, tmp_path):
    """With a tiny learning rate, a run ends close to where it starts."""
    start = tmp_path / "renamed.h5"
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
    assert "final.json: missing" in capsys.readouterr().err
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
