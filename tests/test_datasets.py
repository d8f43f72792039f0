"""What users rely on when they point the scripts at their copy of DRIVE or CHASE DB1."""

import dataclasses
import hashlib
import re
import shutil
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

import train_drive
from vessels import UserError, evaluation
from vessels.data import custom, published, sources, synthetic
from vessels.data.fov import field_of_view
from vessels.data.images import read_mask
from vessels.data.published import CHASEDB1, DRIVE, HRF
from vessels.training import config

SETS = pytest.mark.parametrize("dataset", [DRIVE, CHASEDB1], ids=lambda dataset: dataset.name)


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def save(path, array, **options):
    """Writes an image of the format that the suffix names; bool becomes black and white."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = array * np.uint8(255) if array.dtype == bool else array
    Image.fromarray(array).save(path, **options)


@pytest.fixture(scope="session")
def pair():
    """Two synthetic photographs for each set, in place of its validation images."""
    return {dataset.name: synthetic.make(dataset, "validation") for dataset in (DRIVE, CHASEDB1)}


@pytest.fixture(scope="session")
def originals(pair, tmp_path_factory):
    """A folder with the validation images of both sets in their official layouts."""
    root = tmp_path_factory.mktemp("official")
    for name, example in zip(DRIVE.splits["validation"], pair["DRIVE"], strict=True):
        save(root / f"DRIVE/training/images/{name}.tif", example.image)
        save(root / f"DRIVE/training/1st_manual/{name[:2]}_manual1.gif", example.label)
        save(root / f"DRIVE/training/mask/{name}_mask.gif", example.fov)
    for name, example in zip(CHASEDB1.splits["validation"], pair["CHASEDB1"], strict=True):
        save(root / f"CHASEDB1/{name}.jpg", example.image, quality=95)
        save(root / f"CHASEDB1/{name}_1stHO.png", example.label)
        save(root / f"CHASEDB1/{name}_2ndHO.png", example.second)
    return root


@pytest.fixture
def root(originals, tmp_path):
    """A copy of `originals` to damage."""
    return Path(shutil.copytree(originals, tmp_path / "data"))


# ---- splits


@SETS
def test_splits_are_disjoint_and_complete(dataset):
    counts = {part: len(names) for part, names in dataset.splits.items()}
    assert counts == {"train": 18, "validation": 2, "test": 20 if dataset is DRIVE else 8}
    assert len({name for names in dataset.splits.values() for name in names}) == sum(counts.values())
    assert len(dataset.published()) == (140 if dataset is DRIVE else 84)  # every file of the official layout
    assert dataset.padded % 8 == 0 and dataset.padded >= max(dataset.size)


# ---- the real images


@SETS
def test_published_files_load_without_a_warning(dataset, data_root, capsys):
    for split, names in dataset.splits.items():
        dataset.at(data_root).check(split)
        examples = dataset.at(data_root).load(split)
        assert tuple(example.name for example in examples) == names
        for example in examples:
            assert example.image.shape == (*dataset.size, 3) and example.image.dtype == np.uint8
            assert example.label.shape == example.fov.shape == dataset.size
            assert 0.05 < example.label[example.fov].mean() < 0.2
            assert (example.second is not None) == (dataset is CHASEDB1 or split == "test")
            assert example.vessel_weight == dataset.vessel_weight != 1
    assert capsys.readouterr().err == ""


def test_hrf_is_the_third_set(data_root, capsys):
    counts = [len(HRF.splits[part]) for part in ("train", "validation", "test")]
    assert counts == [12, 3, 30] == [len({*HRF.splits[part]}) for part in HRF.splits]
    assert {*HRF.other_labels} < {*HRF.splits["test"]} and len(HRF.published()) == 90
    if not (data_root / "HRF").is_dir():
        pytest.skip("needs HRF beside DRIVE")
    HRF.at(data_root).check("validation")  # labels and masks are re-encoded there: their pixels are compared
    assert capsys.readouterr().err == ""
    example = HRF.at(data_root).photographs("validation")[0].load()
    assert example.image.shape == (2336, 3504, 3) and example.fov.mean() > 0.8
    assert field_of_view(example.image)[1] == pytest.approx(HRF.diameter, abs=15)


def test_only_sets_with_a_padded_size_are_learned_from_as_the_authors_did(capsys):
    with pytest.raises(SystemExit):
        config.parse(HRF, train_drive.RECIPE, {}, "help", ["--recipe", "authors"])
    assert "unrecognized arguments: --recipe authors" in capsys.readouterr().err


@pytest.mark.parametrize("source", [
    *published.DATASETS, sources.Several(), sources.Several(sources=("HRF",), parts=(HRF,)),
    synthetic.Procedural(DRIVE), synthetic.Procedural(sources.Several()), custom.Table(Path("mine.csv"), (), ())])
def test_every_command_that_a_message_prints_exists(source):
    script, *flags = source.eval_command("final.weights.h5").split()
    assert (ROOT / script).is_file()
    of = {"eval_drive.py": DRIVE, "eval_chase.py": CHASEDB1}.get(script, sources.Several())
    assert evaluation.parse(of, "help", flags).weights == [Path("final.weights.h5")]


def test_every_script_that_a_text_names_exists():
    paths = [ROOT / "README.md", *ROOT.glob("*.py"), *(ROOT / "vessels").rglob("*.py")]
    named = {name for path in paths
             for name in re.findall(r"\b((?:train|eval|predict)[a-z_]*\.py)", path.read_text(encoding="utf-8"))}
    assert len(named) >= 7 and all((ROOT / name).is_file() for name in named)


@pytest.mark.slow
@SETS
def test_estimated_field_of_view_agrees_with_masks(dataset, data_root):
    masks = data_root / "CHASEDB1_fov"
    if dataset is CHASEDB1 and not masks.is_dir():
        pytest.skip("needs CHASEDB1_fov beside CHASEDB1")
    for split in dataset.splits:
        for example in dataset.at(data_root).load(split):
            mask = example.fov if dataset is DRIVE else read_mask(masks / f"{example.name}.png")
            assert dice(field_of_view(example.image)[0], mask) >= 0.995, example.name


def test_a_file_of_another_photograph_is_named(data_root, tmp_path, capsys):
    shutil.copytree(data_root / "DRIVE" / "training", tmp_path / "training")
    masks = tmp_path / "training/mask"
    shutil.copy(masks / "40_training_mask.gif", masks / "23_training_mask.gif")
    DRIVE.at(tmp_path).check("validation")
    assert "1 files" in (said := capsys.readouterr().err) and "training/mask/23_training_mask.gif" in said


# ---- where the folder is


@SETS
def test_the_folder_is_data_dir_or_in_it_or_in_the_environments(dataset, root, tmp_path, monkeypatch):
    folder = root / dataset.name
    monkeypatch.setenv("RSAN_DATA_ROOT", str(root))
    assert dataset.folder == dataset.at(str(root)).folder == dataset.at(folder).folder == folder
    monkeypatch.setenv("RSAN_DATA_ROOT", str(tmp_path / "elsewhere"))
    assert dataset.at(root).folder == folder
    with pytest.raises(UserError, match=rf"elsewhere.{dataset.name}: no such folder.*--data-dir"):
        _ = dataset.folder


@pytest.mark.parametrize("spelling", ["chasedb1", "Chase"])
def test_folder_is_found_in_other_spellings(spelling, tmp_path):
    (tmp_path / spelling).mkdir()
    assert CHASEDB1.at(tmp_path).folder == tmp_path / spelling


# ---- layouts


@SETS
def test_official_layout_gives_what_was_written(dataset, root, pair):
    examples = dataset.at(root).load("validation")
    for loaded, written in zip(examples, pair[dataset.name], strict=True):
        np.testing.assert_array_equal(loaded.label, written.label)
        assert dice(loaded.fov, written.fov) > 0.995
        if dataset is DRIVE:
            np.testing.assert_array_equal(loaded.image, written.image)
            np.testing.assert_array_equal(loaded.fov, written.fov)
            assert loaded.second is None
        else:
            np.testing.assert_array_equal(loaded.second, written.second)


NAMES = [("images", "labels"), ("image", "label"), ("IMAGES", "LABELS")]


@pytest.mark.parametrize(("images", "labels"), NAMES)
@pytest.mark.parametrize("split", ["train", "validation", "test"])
@SETS
def test_authors_layout(dataset, split, images, labels, pair, tmp_path):
    """Also for the test images, whose paths are the same in the official layout."""
    folder = tmp_path / dataset.key.capitalize() / split.replace("validation", "validate")
    names = dataset.splits[split][:2]
    for name, example in zip(names, pair[dataset.name], strict=True):
        label = f"{name[:2]}_manual1.png" if dataset is DRIVE else f"{name}_1stHO.png"
        save(folder / labels / label, example.label)
        save(folder / images / f"{name}{'.tif' if dataset is DRIVE else '.jpg'}", example.image)
    two = dataclasses.replace(dataset, splits={split: names})
    examples = two.at(tmp_path).load(split)
    for loaded, written in zip(examples, pair[dataset.name], strict=True):
        np.testing.assert_array_equal(loaded.label, written.label)
        assert dice(loaded.fov, written.fov) > 0.995 and loaded.second is None


def upper_case(folder):
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        path.rename(path.with_suffix(path.suffix.upper()))


def labels(save, suffix):
    """Writes the labels again: `save(picture, path)` in a file with another suffix."""
    def change(folder):
        for path in (folder / "training/1st_manual").iterdir():
            picture = Image.open(path).convert("L")
            path.unlink()
            save(picture, path.with_suffix(suffix))

    return change


def grey_palette(picture, path):
    picture = picture.point(lambda value: value > 127).convert("P")
    picture.putpalette([3, 3, 3, 253, 253, 253])
    picture.save(path)


def linked(folder):
    elsewhere = (folder / "training/images").rename(folder / "Daten für Gefäße 网膜")
    (folder / "training/images").symlink_to(elsewhere)


def hidden_copies(folder):
    (folder / "training/images/._23_training.tif").write_bytes(b"what macOS leaves on memory sticks")
    (folder / "training/images/Thumbs.db").write_bytes(b"what Windows leaves")


def more_bits_and_a_channel(folder):
    """Of the photographs, and of a label, which keep their values."""
    for path in (folder / "training/images").iterdir():
        image = cv2.imread(str(path)).astype("uint16") * 257
        cv2.imwrite(str(path), np.dstack([image, np.full(image.shape[:2], 65535, "uint16")]))


@pytest.mark.parametrize("change", [
    upper_case, linked, more_bits_and_a_channel, hidden_copies, labels(Image.Image.save, ".jpg"),
    labels(grey_palette, ".gif"), labels(lambda picture, path: picture.convert("RGB").save(path), ".tif"),
    labels(lambda picture, path: picture.point(lambda value: value > 127).save(path), ".png")])
def test_harmless_variations_load_alike(change, root, pair):
    change(root / "DRIVE")
    examples = DRIVE.at(root).load("validation")
    for loaded, written in zip(examples, pair["DRIVE"], strict=True):
        np.testing.assert_array_equal(loaded.image, written.image)
        np.testing.assert_array_equal(loaded.label, written.label)


def test_a_third_set_is_one_more_instance(tmp_path, pair, capsys):
    third = dataclasses.replace(
        DRIVE, name="STARE", title="STARE", key="stare", splits={"test": ("im0001",)},
        places={"image": "photos/{name}", "label": "labels/{name}"})
    save(tmp_path / "STARE/photos/im0001.ppm", pair["DRIVE"][0].image)
    save(tmp_path / "STARE/labels/im0001.png", pair["DRIVE"][0].label)
    (example,) = third.at(tmp_path).load("test")
    assert example.fov.mean() > 0.5
    assert capsys.readouterr().err == ""  # no checksums are published that its files could differ from


# ---- checksums


def test_one_warning_line_names_what_is_not_published(root, capsys):
    DRIVE.at(root).check("validation")
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "warning: 6 files" in error and "training/images/23_training.tif" in error


@SETS
def test_checksums_are_of_the_files_read(dataset, root):
    sums = dataset.at(root).checksums("validation")
    assert len(sums) == 6
    for path, digest in sums.items():
        assert hashlib.sha256((root / dataset.name / path).read_bytes()).hexdigest() == digest


# ---- bad input: each case damages a copy of the official layout; the message must hold the given words

IMAGE = "DRIVE/training/images/23_training.tif"
LABEL = "DRIVE/training/1st_manual/23_manual1.gif"
MASK = "DRIVE/training/mask/23_training_mask.gif"
CHASE_LABEL = "CHASEDB1/Image_09R_1stHO.png"


def remove(path):
    path.unlink()


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def dangling(path):
    path.unlink()
    path.symlink_to("nowhere")


def folder_instead(path):
    path.unlink()
    path.mkdir()


def twice(path):
    shutil.copy(path, path.with_suffix(".png"))


def bomb(path):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    path.unlink()
    path.with_suffix(".png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"")
                                         + chunk(b"IEND", b""))


def altered(function):
    """Applies `function` to the pixels (uint8) and saves them under the same name."""

    def change(path):
        picture = Image.open(path)
        picture = np.asarray(picture.convert("RGB" if picture.mode == "RGB" else "L"))
        Image.fromarray(np.ascontiguousarray(function(picture))).save(path)

    return change


def frames(path):
    picture = Image.open(path)
    picture.save(path, save_all=True, append_images=[picture])


def other_label(path):
    shutil.copy(path.with_name(path.name.replace("09R", "10L")), path)


BAD = [
    (IMAGE, remove, "the image of 23_training is missing"),
    (IMAGE, truncate, "cannot be decoded"),
    (IMAGE, empty, "the file is empty"),
    (IMAGE, dangling, "No such file"),
    (IMAGE, folder_instead, "Is a directory"),
    (IMAGE, twice, "23_training.png, training/images/23_training.tif all claim to be the image"),
    (IMAGE, frames, "holds 2 photographs"),
    (IMAGE, altered(np.ones_like), "all black"),
    (IMAGE, altered(lambda image: image[:, ::-1]), "does not follow the vessels of 23_training.tif"),
    (IMAGE, altered(lambda image: image[:-1]), "565x583 pixels, not 565x584"),
    (LABEL, remove, "the label of 23_training is missing"),
    (LABEL, bomb, "more than 40 megapixels"),
    (LABEL, altered(lambda label: np.where(label[::-1] > 0, 128, label)), "holds values such as [0, 128, 255] where"),
    (LABEL, altered(np.zeros_like), "0% of the pixels are vessel"),
    (LABEL, altered(lambda label: 255 - label), "% of the pixels are vessel; is it empty or inverted?"),
    (LABEL, altered(lambda label: label[:, ::-1]), "does not follow the vessels"),
    (LABEL, altered(lambda label: label[:, 1:]), "564x584 pixels, not 565x584"),
    (MASK, remove, "the fov of 23_training is missing"),
    (MASK, altered(lambda mask: 255 - mask), "is it empty or inverted?"),
    (MASK, altered(lambda mask: mask // 3), "holds values such as [0, 85] where"),
    (CHASE_LABEL, other_label, "does not follow the vessels"),
    ("CHASEDB1/Image_09R_2ndHO.png", remove, "the second of Image_09R is missing"),
    ("CHASEDB1/Image_09R_2ndHO.png", altered(np.zeros_like), "0% of the pixels are vessel"),
]


def case_name(value):
    return getattr(value, "__name__", value) if callable(value) else str(value).split("/")[-1][:30]


@pytest.mark.parametrize(("file", "damage", "message"), BAD, ids=case_name)
def test_bad_input_is_one_line_that_names_the_file(file, damage, message, root):
    damage(root / file)
    dataset = DRIVE if file.startswith("DRIVE") else CHASEDB1
    with pytest.raises(UserError) as error:
        dataset.at(root).load("validation")
    line = str(error.value).replace("\\", "/")
    assert message in line and Path(file).stem[:2] in line and "\n" not in line
    remedies = ("restore", "complete the folder", "keep one", "make it readable", "scale it down", "save each",
                "no photograph")
    assert any(remedy in line.lower() for remedy in remedies)


def test_unreadable_files(root, monkeypatch):
    def refuse(self, *_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UserError, match=r"23_training\.tif: Permission denied; correct the path or make it readable"):
        DRIVE.at(root).load("validation")


def test_the_challenge_sites_copy_says_that_test_labels_are_missing(root, pair):
    save(root / "DRIVE/test/images/01_test.tif", pair["DRIVE"][0].image)
    save(root / "DRIVE/test/mask/01_test_mask.gif", pair["DRIVE"][0].fov)
    with pytest.raises(UserError, match="label of 01_test is missing; the challenge site's copy has no test labels"):
        DRIVE.at(root).load("test")


def test_an_empty_folder(tmp_path):
    with pytest.raises(UserError, match="the image of 01_test is missing; complete the folder"):
        DRIVE.at(tmp_path).load("test")
