"""Decodes all image files: those of the published data sets, with strict checks, and anyone's photographs."""

import contextlib
import functools
import gzip
import hashlib
import io
import logging
import re
import sys
import warnings
from pathlib import Path

import cv2
import numpy as np
import skimage
import tifffile
from PIL import Image, ImageOps, PngImagePlugin

from vessels import UserError
from vessels.files import read_bytes

EXAMPLE = Path(skimage.__file__).parent / "data" / "retina.jpg"  # the file of skimage.data.retina()
SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".gif", ".bmp", ".ppm"}
MEGAPIXELS = 40
# What decoders would print about a broken file is said by the error that names it.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)
Image.MAX_IMAGE_PIXELS = None  # `_refuse_huge` has a limit of its own
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 2**26  # colour profiles of 3 MB exist
# What is named like a photograph and is none: how the file begins, what it is, and the remedy.
OTHERS = {
    rb".{128}DICM": "a DICOM file; export the photograph as PNG or TIFF (e.g. with DCMTK's dcm2img)",
    rb".{4}ftyp(hei[cxms]|hevc|mif1)": "an HEIC photograph, whatever its name; export it as JPEG or PNG",
    rb".{4}ftypcrx|.{6}HEAPCCDR|II\*\0.{4}CR|IIU\0|IIR[OS]|MMOR|FUJIFILMCCD|FOVb|\0MRM": "a camera's raw file; export "
                                                                                          "it as TIFF or JPEG",
    rb"%PDF": "a PDF; export the photograph in it as PNG",
    rb"\s*<(!doctype|html|\?xml|svg)": "a web page or a drawing, no photograph; download the image itself",
    rb"version https://git-lfs": "a pointer of Git LFS, no photograph; fetch it with `git lfs pull`",
    rb"PK\x03\x04|BZh|\xfd7zXZ|\x1f\x9d|7z\xbc\xaf|Rar!": "a compressed archive; unpack it",
}


def decode(path):
    """Pixels of an image file, turned upright, in the file's own bit depth.

    Returns:
        Grey `(height, width)` or RGB `(height, width, 3)`, integers or floats. 0 is black, even if white is 0 in
        the file; transparent pixels are black.

    Raises:
        UserError: The file cannot be read or decoded, holds several photographs, or has more than 40 megapixels.
    """
    content = read_bytes(Path(path))
    try:
        with warnings.catch_warnings(action="ignore"):
            if content[:2] == b"\x1f\x8b":
                content = gzip.GzipFile(fileobj=io.BytesIO(content)).read(16 * MEGAPIXELS * 10**6)
            for begin, remedy in OTHERS.items():
                if re.match(begin, content[:200], re.DOTALL | re.IGNORECASE):
                    raise UserError(f"{path}: {remedy}")
            if content[:3] in (b"II*", b"II+", b"MM\0"):
                return _decode_tiff(content, path)
            return _decode_other(content, path)
    except UserError:
        raise
    except Exception as error:  # decoders raise many kinds of errors for a broken file
        raise UserError(f"{path}: cannot be decoded; is it truncated, or not an image? Restore the original "
                        f"({type(error).__name__})") from None


def _refuse_huge(path, pixels):
    if pixels > MEGAPIXELS * 1e6:
        raise UserError(f"{path}: more than {MEGAPIXELS} megapixels; scale it down")


def _decode_tiff(content, path):
    """Uses tifffile, which reads every layout of TIFF; Pillow and OpenCV read the compressions that it lacks."""
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        page = _photograph(file, path)
        _refuse_huge(path, page.imagewidth * page.imagelength)
        kind, grey, array = page.photometric.name, page.photometric.name.startswith("MINIS"), None
        if (grey or kind == "RGB") and page.bitspersample % 8 == 0:
            with contextlib.suppress(ValueError, ImportError):  # a compression that needs imagecodecs
                array = page.asarray()
        if array is None:
            if len(page.treeindex) > 1 or not (grey or kind == "RGB" or page.bitspersample <= 8):
                raise ValueError("needs imagecodecs")
            if page.bitspersample <= 8:
                return _decode_other(content, path, page.index)  # Pillow turns TIFF upright by itself
            array = _opencv(content, page.index)
        elif page.axes.startswith("S"):
            array = np.moveaxis(array, 0, -1)
        channels = array.shape[2] if array.ndim == 3 else 1
        if grey and channels not in (1, 3, 4):
            raise UserError(f"{path}: holds {channels} channels, neither grey nor RGB; save it as RGB")
        if kind == "MINISWHITE":
            white = white_level(array)
            array = white - np.minimum(array, white)
        return _upright(_on_black(array, 2 not in page.extrasamples), page.tags.valueof(274, default=1))


def _photograph(file, path):
    """The page of a TIFF that is no thumbnail and no mask; it may lie within a page.

    Raises `UserError` if there are several, or it is a camera's raw data.
    """
    def size(page):
        return page.imagewidth * page.imagelength

    pages = [page for top in file.pages for page in (top, *(top.pages or ()))]
    pages = [page for page in pages if not page.subfiletype & 5] or pages  # 1 is a reduced version, 4 a mask
    largest = max(pages, key=size)
    if largest.photometric.name in ("CFA", "LINEAR_RAW"):
        raise UserError(f"{path}: a camera's raw file; export it as TIFF or JPEG")
    similar = sum(3 * size(page) > size(largest) for page in pages)  # others are thumbnails or labels
    if similar > 1:
        raise UserError(f"{path}: holds {similar} photographs; save each in a file of its own")
    return largest


def _decode_other(content, path, frame=0):
    with Image.open(io.BytesIO(content)) as picture:
        _refuse_huge(path, picture.width * picture.height)
        if picture.format in ("GIF", "PNG", "WEBP", "AVIF") and getattr(picture, "n_frames", 1) > 1:
            raise UserError(f"{path}: an animation of {picture.n_frames} images; save the photograph alone")
        if frame:
            picture.seek(frame)
        # Pillow would silently keep only the upper 8 bits of these: almost nothing of a 12-bit camera's values.
        if picture.format in ("PPM", "JPEG2000") or ";16" in str(picture.tile):
            return _upright(_on_black(_opencv(content)), picture.getexif().get(274, 1))
        picture = ImageOps.exif_transpose(picture)
        if picture.has_transparency_data:
            picture = picture.convert("RGBA")
        elif picture.mode not in ("L", "I", "I;16", "I;16B", "F"):
            picture = picture.convert("L" if picture.mode == "1" else "RGB")
        return _on_black(np.asarray(picture))


def _opencv(content, frame=0):
    array = cv2.imdecodemulti(np.frombuffer(content, "uint8"), cv2.IMREAD_UNCHANGED)[1][frame]
    return array if array.ndim == 2 else array[..., [2, 1, 0, 3][:array.shape[2]]]


def _on_black(array, premultiplied=False):
    """Grey or RGB: removes an alpha channel, so that pixels more transparent than others become black."""
    if array.ndim == 2:
        return array
    colours = 3 if array.shape[2] >= 3 else 1
    alpha, array = array[..., colours:colours + 1], array[..., :colours]
    if alpha.any() and not premultiplied:  # an alpha of 0 everywhere means nothing
        array = (array * (alpha / alpha.max())).astype(array.dtype)
    return array if colours == 3 else array[..., 0]


def _upright(array, orientation):
    """Undoes one of the eight orientations of TIFF and EXIF."""
    array = array.swapaxes(0, 1) if orientation > 4 else array
    array = array[:, ::-1] if orientation in (2, 3, 6, 7) else array
    return array[::-1] if orientation in (3, 4, 7, 8) else array


def white_level(array):
    """The value that means white: 1 for floats in [0, 1], else 255, 511, ..., by the number of bits in use.

    12-bit cameras write 16-bit files, in which lettering or dead pixels may be brighter than any retina.
    """
    if array.dtype == np.uint8:
        return 255
    step = max(max(array.shape[:2]) // 1024, 1)
    sample = array[::step, ::step]
    used = sample[sample > 0]
    for level in [1] * (array.dtype.kind == "f") + [2**bits - 1 for bits in range(8, 33)]:
        above = used[used > level]
        # Lettering and dead pixels are few, and much brighter than the rest.
        if above.size <= 0.05 * used.size and (above <= 2 * level + 1).sum() <= 0.0005 * used.size:
            break
    return level


def eight_bit(array, path):
    """Converts what `decode` returns to uint8. Raises `UserError` if many values are negative, or they are complex."""
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind not in "uif" or (array < 0).mean() > 0.01:
        raise UserError(f"{path}: holds negative or {array.dtype} values; save it with 8 or 16 bits")
    if array.dtype.kind == "f" and np.isnan(array).any():
        say_once(f"warning: {path}: values that are not numbers count as black")
    white = white_level(array)
    if array.dtype.kind in "ui":
        return (array.clip(0, white) // ((white + 1) // 256)).astype("uint8")
    return (np.nan_to_num(array).clip(0, white) * (255 / white)).round().astype("uint8")


def _check_size(array, path, size):
    if size and array.shape[:2] != tuple(size):
        shape = f"{array.shape[1]}x{array.shape[0]} pixels, not {size[1]}x{size[0]}"
        raise UserError(f"{path}: {shape}; is it of another set, or resized? Restore the original")


def read_mask(path, size=None):
    """bool `(height, width)`, from one channel or three equal ones. Raises `UserError` if it is not of `size`.

    Two values mean black and white: 0 and 255, 0 and 1, or nearly so: DRIVE's second observer holds 3 and 253. Only a
    JPEG may hold others, if nearly all are near black or white. Raises `UserError` for all else: the file is a scaled
    copy, or has several classes.
    """
    mask = eight_bit(decode(path), path)
    _check_size(mask, path, size)
    if mask.ndim == 3:
        if np.ptp(mask, axis=2).max() > 8:
            raise UserError(f"{path}: holds colours where only black and white are expected; make all vessels, arteries"
                            " and veins alike, white")
        mask = mask[..., 1]
    counts = np.bincount(mask.ravel(), minlength=256)
    values = np.flatnonzero(counts)
    if values.max() <= 1:
        return mask == 1
    lossy = Path(path).suffix.lower() in (".jpg", ".jpeg") and counts[64:192].sum() < 0.005 * mask.size
    if lossy:
        say_once("warning: labels or masks are JPEG files: values above 127 count as white")
    elif counts[4:252].any() or len(values) > 2 or values.max() < 252:
        raise UserError(f"{path}: holds values such as {values[:6].tolist()} where only black (0) and white (255) are "
                        "expected; restore the original if it was scaled or saved as JPEG, else make vessels white and "
                        "all else black (what should be ignored: black in fov)")
    return mask > 127


@functools.cache
def say_once(text):
    print(text, file=sys.stderr)


def read_photograph(path, size=None):
    """A photograph as uint8 `(height, width, 3)`, RGB, turned upright.

    Reads JPEG, PNG, TIFF (thumbnails aside), GIF, BMP, PPM and other formats of Pillow and OpenCV, also zipped (.gz),
    of any bit depth; the bits in use (such as 12 of 16) are scaled to 8. Transparent pixels become black. If only one
    colour channel is used, as in many red-free photographs, the image becomes grey.

    Raises:
        UserError: It cannot be read, holds several photographs, has more than 40 megapixels or a side of fewer than 64
            pixels or an eighth of the other, is all black, or has fewer than 8 grey values, as masks and labels have;
            or `size` is given, (height, width), and it has another one.
    """
    image = eight_bit(decode(path), path)
    _check_size(image, path, size)
    if image.ndim == 3:
        bright = np.percentile(image[::4, ::4], 95, axis=(0, 1))
        used = bright > bright.max() / 10
        if used.sum() == 1:
            image = image[..., used.argmax()]
    if image.ndim == 2:
        image = np.stack([image] * 3, axis=-1)
    short, long = sorted(image.shape[:2])
    wrong = {"all black": image.max() < 16, "smaller than 64 pixels": short < 64,
             f"{long // max(short, 1)} times as long as wide": long > 8 * short,
             "a mask or a label of a few values": len(np.unique(image[::4, ::4, 1])) < 8}
    if any(wrong.values()):
        raise UserError(f"{path}: {next(text for text, true in wrong.items() if true)}, no photograph")
    return np.array(image, order="C")


def checksum(image):
    """SHA-256, of the pixels of uint8 `(height, width, 3)` or a bool mask: equal for lossless copies."""
    return hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).hexdigest()


def pad(image, height, width):
    """Centres `image`, `(rows, columns)` or `(rows, columns, channels)`, on a black canvas of `height` x `width`.

    An odd pixel goes to the right or bottom, as in the authors' code. Raises ValueError if the image does not fit.
    """
    top, left = (height - image.shape[0]) // 2, (width - image.shape[1]) // 2
    widths = ((top, height - image.shape[0] - top), (left, width - image.shape[1] - left))
    return np.pad(image, widths + ((0, 0),) * (image.ndim - 2))


def crop(padded, height, width):
    """Undoes `pad`: the centre of `padded`, of shape `(height, width)`."""
    top, left = (padded.shape[0] - height) // 2, (padded.shape[1] - width) // 2
    return padded[top : top + height, left : left + width]
