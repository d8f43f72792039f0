"""What users rely on when they list their own photographs and labels in a CSV."""

import hashlib
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_datasets import altered, truncate

from vessels import UserError
from vessels.data import custom, synthetic
from vessels.data.published import DRIVE


def table(root, *lines, header="image,label", encoding="utf-8"):
    path = root / "mine.csv"
    path.write_bytes("\n".join([header, *lines]).encode(encoding))
    return path


PAIRS = [f"images/{i}.png,labels/{i}.png" for i in range(4)]


def test_photographs_of_different_sizes_load_as_they_are(root):
    lines = [f"{pair},masks/{i}.gif,second/{i}.png" for i, pair in enumerate(PAIRS)]
    found = custom.read(table(root, *lines, header="image,label,fov,second")).load("test")
    for i, (example, written) in enumerate(zip(found, synthetic.make(DRIVE, "test"), strict=True)):
        cut = np.s_[:-40] if i == 3 else np.s_[:]
        assert example.name == str(i)
        for kind in ("image", "label", "fov", "second"):
            np.testing.assert_array_equal(getattr(example, kind), getattr(written, kind)[cut])


def test_field_of_view_and_second_observer_are_optional(root):
    examples = custom.read(table(root, *PAIRS[:3])).load("test")
    for example, written in zip(examples, synthetic.make(DRIVE, "test"), strict=False):
        assert example.second is None
        assert (example.fov != written.fov).mean() < 0.01


SEMICOLONS = "image;label\nimages/0.png;labels/0.png\nimages/1.png;labels/1.png\n"
SPREADSHEETS = {
    "semicolons": SEMICOLONS,
    "tabs": SEMICOLONS.replace(";", "\t"),
    "byte order mark": "\ufeff" + SEMICOLONS,
    "Windows": SEMICOLONS.replace("\n", "\r\n").replace("/", "\\"),
    "blank lines": "\n" + SEMICOLONS.replace("\n", "\n;\n\n"),
    "capitals and blanks": SEMICOLONS.replace("image;label", "Image ; Label").replace(";l", " ; l"),
    "quotes": SEMICOLONS.replace("images/0.png", '"images/0.png"').replace("image;", '"image";'),
    "sep=": "sep=;\n" + SEMICOLONS,
    "sep= on Windows": "sep=;\r\n" + SEMICOLONS.replace("\n", "\r\n"),
    "empty columns at the end": SEMICOLONS.replace("\n", ";;\n"),
    "other columns empty": "image,label,fov,second,split\nimages/0.png,labels/0.png,,,\nimages/1.png,labels/1.png,,,\n",
}


@pytest.mark.parametrize("spelling", SPREADSHEETS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_what_spreadsheets_write_is_read(spelling, encoding, root):
    (root / "mine.csv").write_bytes(SPREADSHEETS[spelling].encode(encoding))
    rows = custom.read(root / "mine.csv").rows
    assert {row.name: row.files["label"].resolve() for row in rows} == {
        name: (root / f"labels/{name}.png").resolve() for name in "01"}


def test_names_with_separators_and_letters_of_any_language(root):
    shutil.move(root / "images/0.png", root / "images/Gefäße, 网膜.png")
    path = table(root, '"images/Gefäße, 网膜.png",labels/0.png', encoding="utf-8-sig")
    assert [example.name for example in custom.read(path).load("test")] == ["Gefäße, 网膜"]


@pytest.mark.parametrize(("listed", "stored"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_letters_with_accents_are_found_in_both_spellings(listed, stored, root):
    name = "Gef\u00e4\u00df.png"
    shutil.move(root / "images/0.png", root / "images" / unicodedata.normalize(stored, name))
    path = table(root, f"images/{unicodedata.normalize(listed, name)},labels/0.png")
    assert custom.read(path).load("test")[0].image.ndim == 3


def test_photographs_of_the_same_name_in_two_folders_keep_apart(root):
    for side, i in (("left", 0), ("right", 1)):
        (root / side).mkdir()
        shutil.move(root / f"images/{i}.png", root / side / "eye.png")
    path = table(root, "left/eye.png,labels/0.png", "right/eye.png,labels/1.png", "images/2.png,labels/2.png")
    assert list(custom.read(path).names("test")) == ["left/eye", "right/eye", "images/2"]


@pytest.mark.parametrize(("paths", "expected"), [
    (["a/Left.png", "b/left.png"], ["a/Left", "b/left"]),  # one file where upper case does not count
    (["a/eye.png", "a/eye.jpg"], ["a/eye.png", "a/eye.jpg"]),
])
def test_names_differ_on_every_file_system(paths, expected, tmp_path):
    assert custom.names([*(tmp_path / path for path in paths), tmp_path / "other.png"])[:2] == expected


# ---- splits


def test_a_table_may_mix_absolute_and_relative_paths(root, monkeypatch):
    path = table(root, PAIRS[0], f"{(root / 'images/1.png').resolve()},labels/1.png")
    monkeypatch.chdir(path.parent)
    assert custom.read(path.name).names("test") == ("0", "1")


def test_only_the_part_asked_for_is_read(root):
    lines = [f"{pair},{split}" for pair, split in zip(PAIRS, ("train", "val", "Test", "training"), strict=True)]
    found = custom.read(table(root, *lines, header="image,label,split"))
    parts = {"train": "03", "validation": "1", "test": "2", "train+validation": "013"}
    assert {split: "".join(found.names(split)) for split in parts} == parts
    assert {split: "".join(found.for_training(7).names(split)) for split in parts} == parts


def test_without_splits_all_are_scored_and_a_seeded_tenth_validates(root):
    found = custom.read(table(root, *PAIRS))
    assert found.names("test") == tuple("0123")
    chosen = {seed: found.for_training(seed).names("validation") for seed in range(20)}
    assert {len(names) for names in chosen.values()} == {1} and len(set(chosen.values())) > 1
    assert chosen == {seed: found.for_training(seed).names("validation") for seed in range(20)}
    assert sorted([*chosen[0], *found.for_training(0).names("train")]) == list("0123")


def test_a_tenth_of_many_validates(root):
    row = custom.read(table(root, PAIRS[0])).rows
    many = custom.Table(root / "many.csv", 30 * row, 30 * ("",)).for_training(0)
    assert (len(many.part("train")), len(many.part("validation"))) == (27, 3)


def test_a_table_of_test_photographs_alone_says_so(root):
    path = table(root, f"{PAIRS[0]},test", header="image,label,split")
    with pytest.raises(UserError, match=r"none of its 1 photographs has split train, all have test"):
        custom.read(path).for_training().load("train")


def test_checksums_are_of_the_files_read(root):
    path = table(root, *(f"{pair},{split}" for pair, split in zip(PAIRS, ("train", "test"), strict=False)),
                 header="image,label,split")
    assert custom.read(path).checksums("test") == {
        name: hashlib.sha256((root / name).read_bytes()).hexdigest() for name in ("images/1.png", "labels/1.png")}


# ---- bad tables: each is one line of a message that names the CSV and the line

TABLES = [
    ("\n", "line 1: the columns are ; they must be image and label"),
    *((f"{columns.replace(', ', ',')}\n1,2,3", f"line 1: the columns are {columns}; they must be image and label")
      for columns in ("image", "image, label, mask", "image, label, label", "images/0.png, labels/0.png")),
    ("image,label\n\n", "lists no photograph"),
    ("image,label\nimages/0.png", "line 2: label is empty"),
    ("image,label\n\nimages/0.png,labels/0.png,masks/0.gif", "line 3: 3 cells where the first line has 2"),
    ("image,label\nimages/0.png,", "line 2: label is empty"),
    ("image,label\n,labels/0.png", "line 2: image is empty"),
    ('image,label\n"images/0.png,labels/0.png', "line 2: unexpected end of data; correct the quotes"),
    ("image,label,split\nimages/0.png,labels/0.png,learn", "line 2: split is 'learn'"),
    ("sep=;\nimage;label\nimages/0.png;", "line 3: label is empty"),
    ("image,label,split\nimages/0.png,labels/0.png,test\ncopy.tif,labels/1.png,train",
     "line 3: {root}/copy.tif is also the image of {root}/mine.csv, line 2"),
    ("image,label,split\nimages/0.png,labels/0.png,test\nimages/1.png,labels/1.png,", "line 3: split is empty"),
    ("image,label\nimages/9.png,labels/0.png", "line 2: {root}/images/9.png: No such file"),
    ("image,label\nimages,labels/0.png", "line 2: {root}/images: Is a directory"),
    ("image,label\nimages/0.png,labels/0.png\nimages/1.png,labels/9.png", "line 3: {root}/labels/9.png: No such file"),
    ("image,label,fov\nimages/0.png,labels/0.png,masks/9.gif", "line 2: {root}/masks/9.gif: No such file"),
    ("image,label\nimages/0.png,images/0.png", "line 2: {root}/images/0.png is also the image of"),
    ("image,label\nimages/0.png,labels/0.png\nimages/1.png,labels/0.png",
     "line 3: {root}/labels/0.png is also the label of {root}/mine.csv, line 2"),
    ("image,label\nimages/0.png,labels/0.png\nimages/../images/0.png,labels/1.png",
     "line 3: {root}/images/../images/0.png is also the image of {root}/mine.csv, line 2"),
    ("image,label,split\nimages/0.png,labels/0.png,test\ncopy.png,labels/1.png,train",
     "line 3: {root}/copy.png is also the image of {root}/mine.csv, line 2"),
    ("image,label,second\nimages/0.png,labels/0.png,labels/0.png", "is also the label of"),
    ("image,label,second\nimages/0.png,labels/0.png,label.tif", "label.tif is also the label of"),
    ("image,label,split\nimages/0.png,labels/0.png,test\nimages/1.png,label.tif,train",
     "line 3: {root}/label.tif is also the label of {root}/mine.csv, line 2"),
    ("image,label\nimages/0.png," + 5000 * "x", "line 2: {root}/xxx"),
    ("image,label\nimages/0.png,labels/0.png\0", "is not text in UTF-8"),
]


@pytest.mark.parametrize(("content", "message"), TABLES)
def test_bad_tables_are_one_line_that_names_the_line(content, message, root):
    shutil.copy(root / "images/0.png", root / "copy.png")
    Image.open(root / "images/0.png").save(root / "copy.tif")
    Image.open(root / "labels/0.png").save(root / "label.tif")
    (root / "mine.csv").write_text(content)
    with pytest.raises(UserError) as error:
        custom.read(root / "mine.csv")
    line = str(error.value)
    assert line.startswith(f"{root}/mine.csv") and message.format(root=root) in line and "\n" not in line


def test_no_table_and_no_text(root):
    with pytest.raises(UserError, match=r"none\.csv: No such file"):
        custom.read(root / "none.csv")
    with pytest.raises(UserError, match=r"mine\.csv: is not text in UTF-8; save it as 'CSV UTF-8'"):
        custom.read(table(root, "images/Gefäß.png,labels/0.png", encoding="cp1252"))
    with pytest.raises(UserError, match=r"drive\.csv: the name drive is taken; rename the file"):
        custom.read(shutil.move(table(root, *PAIRS), root / "drive.csv"))


def swapped(path):
    shutil.copy(path.with_name("1.png"), path)


def disc_in_a_corner(mask):
    return np.where(np.add.outer(*map(np.arange, mask.shape)) < 300, 255, 0).astype("uint8")


def values(*levels):
    """Replaces black, a part of it, and white."""
    black, part, white = levels

    def change(label):
        return np.where(label > 127, white, np.where(np.roll(label, 9, 0) > 127, part, black)).astype("uint8")

    return altered(change)


def coloured(path):
    white = np.asarray(Image.open(path)) > 127
    Image.fromarray(255 * np.dstack([white, np.roll(white, 9, 0), white]).astype("uint8")).save(path)


BAD = [
    ("images/0.png", truncate, "cannot be decoded"),
    ("images/0.png", altered(np.zeros_like), "all black"),
    ("images/0.png", altered(lambda image: image[:40]), "smaller than 64 pixels"),
    ("labels/0.png", truncate, "cannot be decoded"),
    ("labels/0.png", altered(lambda label: label[1:]), "565x583 pixels, not 565x584"),
    ("labels/0.png", altered(lambda label: label // 2), "holds values such as [0, 127] where"),
    ("labels/0.png", values(0, 1, 255), "holds values such as [0, 1, 255] where only black (0) and white"),
    ("labels/0.png", values(0, 1, 2), "holds values such as [0, 1, 2] where"),
    ("labels/0.png", values(0, 0, 2), "holds values such as [0, 2] where"),
    ("masks/0.gif", values(0, 128, 255), "holds values such as [0, 128, 255] where"),
    ("labels/0.png", coloured, "holds colours where only black and white are expected; make all vessels"),
    ("labels/0.png", altered(np.zeros_like), "is it empty or inverted?"),
    ("labels/0.png", altered(lambda label: 255 - label), "is it empty or inverted?"),
    ("labels/0.png", altered(lambda label: label[:, ::-1]), "does not follow the vessels of 0.png"),
    ("second/0.png", altered(np.zeros_like), "is it empty or inverted?"),
    ("second/0.png", swapped, "does not follow the vessels of 0.png"),
    ("masks/0.gif", altered(lambda mask: mask[1:]), "565x583 pixels, not 565x584"),
    ("masks/0.gif", altered(lambda mask: 255 - mask), "is it empty or inverted?"),
    ("masks/0.gif", altered(np.zeros_like), "is it empty or inverted?"),
]


@pytest.mark.parametrize(("file", "damage", "message"), BAD)
def test_bad_files_are_one_line_that_names_the_line(file, damage, message, root):
    damage(root / file)
    path = table(root, "images/0.png,labels/0.png,masks/0.gif,second/0.png", header="image,label,fov,second")
    with pytest.raises(UserError) as error:
        custom.read(path).load("test")
    line = str(error.value)
    assert line.startswith(f"{path}, line 2: ") and message in line and Path(file).name in line and "\n" not in line


@pytest.mark.parametrize(("file", "change", "message"), [
    ("masks/0.gif", lambda mask: np.roll(mask, 180, 1), "it lies where the photograph shows no retina"),
    ("labels/0.png", lambda label: label * (np.arange(len(label)) < 250)[:, None].astype("uint8"),
     "of the field of view; if the rest was not labelled, make it black in fov"),
    ("labels/0.png", lambda label: label, ""),
])
def test_doubtful_masks_and_labels_are_named(file, change, message, root, capsys):
    altered(change)(root / file)
    custom.read(table(root, "images/0.png,labels/0.png,masks/0.gif", header="image,label,fov")).load("test")
    said = capsys.readouterr().err
    assert (f"warning: {root / file}: " in said and message in said) if message else not said


def test_a_second_observer_for_some_photographs_only_is_refused(root):
    path = table(root, f"{PAIRS[0]},second/0.png", f"{PAIRS[1]},", header="image,label,second")
    with pytest.raises(UserError, match=r"mine\.csv, line 3: second is empty here but not in other lines"):
        custom.read(path).load("test")


def test_les_av_loads(data_root):
    path = data_root / "LES_AV" / "les_av.csv"
    if not path.exists():
        pytest.skip("needs LES_AV beside DRIVE")
    found = custom.read(path)
    assert len(found.rows) == 22 and len(found.for_training().part("validation")) == 2
    for example in found.for_training().load("validation"):
        assert example.image.shape[:2] == example.label.shape == example.fov.shape
