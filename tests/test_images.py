"""Files of every format, also those that decoders may misread, give the photograph that was written."""

import gzip
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from vessels import UserError
from vessels.data import images


@pytest.fixture(scope="module")
def eye(eye):
    """uint8 RGB, not square, so that a turned image is noticed."""
    return np.ascontiguousarray(eye.image[::2, 8:-8:2])


ORIENTATION = 274
TURNS = {  # how the pixels are stored in the file, for each orientation tag, so that the image is upright
    1: lambda image: image, 2: np.fliplr, 3: lambda image: np.rot90(image, 2), 4: np.flipud,
    5: lambda image: image.swapaxes(0, 1), 6: lambda image: np.rot90(image, 1),
    7: lambda image: np.rot90(image, 2).swapaxes(0, 1), 8: lambda image: np.rot90(image, -1),
}


NOISE = np.random.default_rng(0).integers(0, 200, (3, 90, 99), "uint8")


def tif(array, path, **options):
    tifffile.imwrite(path, array, **options)


def opencv(array, path, *options):
    cv2.imwrite(str(path), array if array.ndim == 2 else array[..., [2, 1, 0, 3][:array.shape[2]]], options)


def green(eye):
    return np.ascontiguousarray(eye[..., 1])


def sixteen(array):
    return array.astype("uint16") * 257


def twelve(array, stamp=None, size=1):
    array = array.astype("uint16") << 4
    if stamp:
        array[5 : 5 + size, 5 : 5 + 2 * size] = stamp
    return array


def opaque(array):
    return np.dstack([array, np.full(array.shape[:2], np.iinfo(array.dtype).max, array.dtype)])


def planes(array):
    return np.ascontiguousarray(np.moveaxis(array, -1, 0))


def after_thumbnail(image, path, reduced=0, within=False):
    with tifffile.TiffWriter(path) as file:
        file.write(np.ascontiguousarray(image[::4, ::4]), subfiletype=reduced, subifds=int(within), **RGB)
        file.write(image, **RGB)


def pillow_pages(first, second, path):
    first.save(path, compression="tiff_lzw", save_all=True, append_images=[second])


def transparent(image, path):
    picture = Image.fromarray(image)
    picture.putalpha(0)
    picture.save(path)


def turned():
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    return exif


def png_with_exif(image):
    png, exif = cv2.imencode(".png", image[..., ::-1])[1].tobytes(), b"eXIf" + turned().tobytes()[6:]
    chunk = (len(exif) - 4).to_bytes(4, "big") + exif + zlib.crc32(exif).to_bytes(4, "big")
    return png[:33] + chunk + png[33:]  # after the signature and IHDR


def with_hole(array):
    array = array.astype("float32") / 255
    array[0, :2] = np.nan, np.inf
    return array


RGB = {"photometric": "rgb"}
COLOUR = {
    "planar 8": lambda eye, path: tif(planes(eye), path, planarconfig="separate", **RGB),
    "planar 12": lambda eye, path: tif(planes(twelve(eye)), path, planarconfig="separate", **RGB),
    "planar, zip": lambda eye, path: tif(planes(sixteen(eye)), path, planarconfig="separate", compression="zlib",
                                         predictor=True, **RGB),
    "big-endian BigTIFF": lambda eye, path: tif(sixteen(eye), path, bigtiff=True, byteorder=">", **RGB),
    "tiled": lambda eye, path: tif(twelve(eye), path, tile=(64, 64), **RGB),
    "LZW 16": lambda eye, path: opencv(sixteen(eye), path, cv2.IMWRITE_TIFF_COMPRESSION, 5),
    "LZW float": lambda eye, path: opencv((eye / 255).astype("float32"), path, cv2.IMWRITE_TIFF_COMPRESSION, 5),
    "thumbnail first": after_thumbnail,
    "thumbnail first, marked": lambda eye, path: after_thumbnail(sixteen(eye), path, reduced=1),
    "photograph within a page": lambda eye, path: after_thumbnail(eye, path, reduced=1, within=True),
    "thumbnail first, LZW": lambda eye, path: pillow_pages(Image.fromarray(eye[::3, ::3]), Image.fromarray(eye), path),
    "thumbnail first, LZW 16": lambda eye, path: cv2.imwritemulti(
        str(path), [sixteen(image[..., ::-1]) for image in (eye[::4, ::4], eye)]),
    "mask second": lambda eye, path: (tif(eye, path, **RGB), tif(eye[..., 1] > 9, path, append=True, subfiletype=4)),
    "profile of 3 MB.png": lambda eye, path: Image.fromarray(eye).save(
        path, icc_profile=np.random.default_rng(0).bytes(3_000_000)),
    "alpha 0.png": transparent,
    "zipped.ppm.gz": lambda eye, path: path.write_bytes(gzip.compress(cv2.imencode(".ppm", eye[..., ::-1])[1])),
    "alpha 8": lambda eye, path: tif(opaque(eye), path, extrasamples=["unassalpha"], **RGB),
    "alpha 16": lambda eye, path: tif(opaque(sixteen(eye)), path, extrasamples=["unassalpha"], **RGB),
    "no alpha but a fourth channel": lambda eye, path: tif(np.dstack([eye, eye[..., 0] * 0]), path,
                                                           extrasamples=["unspecified"], **RGB),
    "float to 1": lambda eye, path: tif((eye / 255).astype("float32"), path, **RGB),
    "double to 65535": lambda eye, path: tif(eye * 257.0, path, **RGB),
    "CMYK": lambda eye, path: Image.fromarray(eye).convert("CMYK").save(path),
    "palette": lambda eye, path: Image.fromarray(eye).quantize(dither=0).save(path, compression="tiff_lzw"),
    "YCbCr": lambda eye, path: Image.fromarray(eye).convert("YCbCr").save(path),
    **{f"{name}.png": lambda eye, path, stamp=stamp, size=size: opencv(twelve(eye, stamp, size), path)
       for name, stamp, size in (("hot pixel", 65535, 1), ("label", 65535, 20), ("grey label", 60000, 20))},
    "alpha 12.png": lambda eye, path: opencv(np.dstack([twelve(eye), twelve(eye)[..., 0] * 0 + 65535]), path),
    "16.ppm": lambda eye, path: opencv(twelve(eye), path),
    "palette.gif": lambda eye, path: Image.fromarray(eye).quantize(dither=0).save(path),
    "webp.webp": lambda eye, path: Image.fromarray(eye).save(path, lossless=True),
    "jpeg turned.JPEG": lambda eye, path: Image.fromarray(TURNS[6](eye)).save(path, exif=turned(), quality=95),
    "jpeg CMYK.jpg": lambda eye, path: Image.fromarray(eye).convert("CMYK").save(path, quality=95),
    "turned 16.png": lambda eye, path: path.write_bytes(png_with_exif(sixteen(TURNS[6](eye)))),
    **{f"turned, {compression}, {turn}": lambda eye, path, turn=turn, compression=compression: Image.fromarray(
        TURNS[turn](eye)).save(path, compression=compression, tiffinfo={ORIENTATION: turn})
       for turn in TURNS for compression in ("raw", "tiff_lzw")},
    **{f"turned 12, {turn}": lambda eye, path, turn=turn: tif(
        TURNS[turn](twelve(eye)), path, extratags=[(ORIENTATION, "H", 1, turn, True)], **RGB) for turn in TURNS},
}
GREY = {
    "white is zero 8": lambda eye, path: tif(255 - green(eye), path, photometric="miniswhite"),
    "white is zero 16": lambda eye, path: tif(65535 - sixteen(green(eye)), path, photometric="miniswhite"),
    "white is zero, 12 in 16": lambda eye, path: tif(4095 - twelve(green(eye)), path, photometric="miniswhite"),
    "turned 8": lambda eye, path: tif(TURNS[6](green(eye)), path, extratags=[(ORIENTATION, "H", 1, 6, True)]),
    "signed": lambda eye, path: tif(twelve(green(eye)).astype("int16"), path),
    "32 bits": lambda eye, path: tif(sixteen(green(eye)).astype("uint32"), path),
    **{f"float to {white}": lambda eye, path, white=white: tif((green(eye) * (white / 255)).astype("float32"), path)
       for white in (1, 255, 1023, 4095, 65535)},
    "half": lambda eye, path: tif((green(eye) / 255).astype("float16"), path),
    "not a number, infinite": lambda eye, path: tif(with_hole(green(eye)), path),
    "red-free 8.png": lambda eye, path: opencv(eye * np.array([0, 1, 0], "uint8"), path),
    "red-free 12": lambda eye, path: tif(twelve(eye * np.array([0, 1, 0], "uint8")), path, **RGB),
    "alpha.png": lambda eye, path: Image.fromarray(green(eye)).convert("LA").save(path),
    "jpeg grey.jpg": lambda eye, path: Image.fromarray(green(eye)).save(path, quality=95),
    "16.pgm": lambda eye, path: opencv(sixteen(green(eye)), path),
}
APART = {"palette": 3, "jpeg": 4, "YCbCr": 2, "CMYK": 1}  # largest differences in formats that round


@pytest.mark.parametrize("kind", [*COLOUR, *(f"grey: {kind}" for kind in GREY)])
def test_every_kind_of_file_is_read_as_the_photograph_that_was_written(kind, eye, tmp_path, capsys):
    name = kind.removeprefix("grey: ")
    if name == "YCbCr" and cv2.__version__ < "5":
        pytest.skip("OpenCV 4.8 cannot read such a file, and says so")
    path = tmp_path / (name if "." in name else "a.tif")
    (COLOUR if name == kind else GREY)[name](eye, path)
    wanted = (eye if name == kind else np.stack([green(eye)] * 3, axis=-1)).astype(int)
    found = images.read_photograph(path)
    assert found.dtype == np.uint8 and found.shape == wanted.shape and found.flags.c_contiguous
    assert ("a.tif: values that are not numbers count as black" in capsys.readouterr().err) == ("number" in kind)
    difference = np.abs(found - wanted)
    stamped = np.s_[5:25, 5:45] if "label" in name or "hot" in name else np.s_[:1, :2]
    difference[stamped] = 0
    rounded = next((value for start, value in APART.items() if name.startswith(start)), 0)
    assert difference.max() <= (60 if rounded > 2 else rounded) + 1
    assert difference.mean() < (rounded or 0.51)


@pytest.mark.parametrize("deep", [np.asarray, sixteen])
def test_what_is_transparent_is_black(deep, eye, tmp_path):
    half = opaque(deep(eye))
    half[: len(half) // 2, :, 3] = 0
    opencv(half, tmp_path / "a.png")
    found = images.read_photograph(tmp_path / "a.png")
    assert not found[: len(half) // 2].any() and (found[len(half) // 2 :] == eye[len(half) // 2 :]).all()


@pytest.mark.parametrize(("name", "write", "message"), [
    ("a.png", lambda path: path.write_bytes(b""), "the file is empty"),
    ("a.png", lambda path: path.mkdir(), "correct the path or make it readable"),
    ("a.png", lambda path: Image.new("RGB", (300, 300)).save(path), "all black"),
    ("a.png", lambda path: Image.new("RGB", (300, 60), "red").save(path), "smaller than 64"),
    ("a.dcm", lambda path: path.write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 100), "DICOM.*PNG or TIFF"),
    ("a.tif", lambda path: tif(np.zeros((100, 100), "float32") - np.eye(100, dtype="float32") - 1, path), "negative"),
    ("a.jpg", lambda path: Image.new("L", (14000, 14000)).save(path), "more than 40 megapixels; scale it down"),
    ("a.tif", lambda path: tif(np.zeros((7000, 6000), "uint8"), path, compression="zlib"), "more than 40 megapixels"),
    ("a.tif", lambda path: path.write_bytes(b"II*\0" + b"\0" * 60), "cannot be decoded"),
    ("a.tif", lambda path: tif(np.ones((3, 90, 99), "uint8"), path, metadata=None,
                                     photometric="minisblack"), "holds 3 photographs; save each"),
    ("a.tif", lambda path: tif(np.dstack([sixteen(NOISE[0])] * 4), path, photometric="separated"), "cannot be decoded"),
    *(("a.tif", lambda path, count=count: tif(np.tile(NOISE[0, ..., None], count), path, photometric="minisblack",
                                              planarconfig="contig"), f"holds {count} channels") for count in (2, 5)),
    ("a.tif", lambda path: tif(NOISE[0] + 1j, path), "or complex128 values"),
    ("a.png", lambda path: Image.fromarray(NOISE[0] > 99).save(path), "a mask or a label of a few values"),
    ("a.png", lambda path: opencv(NOISE[0] // 50, path), "all black|few values"),
    ("a.png", lambda path: opencv(np.tile(NOISE[0], (10, 1)), path), "9 times as long as wide"),
    ("a.dng", lambda path: tif(np.ones((90, 99), "uint16"), path, photometric=32803), "raw file; export it as TIFF"),
    ("a.gif", lambda path: Image.linear_gradient("L").save(path, save_all=True, append_images=[
        Image.radial_gradient("L")]), "an animation of 2 images"),
    ("a.ppm.gz", lambda path: path.write_bytes(gzip.compress(b"P6 99 99 255 ")[:9]), "cannot be decoded"),
    *((name, lambda path, begin=begin: path.write_bytes(begin + bytes(99)), message) for name, begin, message in (
        ("a.jpg", b"\0\0\0\x18ftypheic", "an HEIC photograph, whatever its name; export it as JPEG"),
        ("a.cr3", b"\0\0\0\x18ftypcrx ", "raw file"), ("a.cr2", b"II*\0\x10\0\0\0CR", "raw file"),
        ("a.raf", b"FUJIFILMCCD-RAW", "raw file"), ("a.pdf", b"%PDF-1.7", "a PDF; export"),
        ("a.png", b"<!DOCTYPE html>", "a web page"), ("a.png", b"version https://git-lfs", "git lfs pull"),
        ("a.png", b"PK\x03\x04", "archive; unpack"))),
])
def test_what_cannot_be_read_is_said_so(name, write, message, tmp_path):
    write(tmp_path / name)
    with pytest.raises(UserError, match=message):
        images.read_photograph(tmp_path / name)


@pytest.mark.parametrize("name", ["1 bit.tif", "white is zero.tif", "turned.tif", "palette.gif"])
def test_labels_are_read_alike_in_every_kind_of_file(name, tmp_path):
    label = np.zeros((60, 80), bool)
    label[10:20, 5:60] = True
    path, eight = tmp_path / name, label.astype("uint8") * 255
    {"1 bit.tif": lambda: Image.fromarray(label).save(path),
     "white is zero.tif": lambda: tif(255 - eight, path, photometric="miniswhite"),
     "turned.tif": lambda: tif(TURNS[6](eight), path, extratags=[(ORIENTATION, "H", 1, 6, True)]),
     "palette.gif": lambda: Image.fromarray(eight).save(path)}[name]()
    np.testing.assert_array_equal(images.read_mask(path, label.shape), label)
