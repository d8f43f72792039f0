"""Image files as arrays: published data sets, which must be what they should be, and anyone's photographs."""

import warnings
from pathlib import Path

import cv2
import numpy as np
import skimage
from PIL import Image, ImageOps

from vessels import UserError
from vessels.files import read_bytes

EXAMPLE = Path(skimage.__file__).parent / "data" / "retina.jpg"  # of skimage.data.retina(), ships with scikit-image
SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".gif", ".bmp", ".ppm"}
MEGAPIXELS = 40


def _decode(path, modes, expected, size):
    path = Path(path)
    read_bytes(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                if size and picture.size != size[::-1]:
                    shape = f"{picture.width}x{picture.height} pixels, not {size[1]}x{size[0]}"
                    raise UserError(f"{path}: {shape}, is it of another set or resized? Restore the original")
                named = Image.registered_extensions().get(path.suffix.lower())
                if picture.format != named:
                    raise UserError(f"{path}: a {picture.format} file named as {named}; restore the original")
                # Pillow reads 16-bit colour as 8-bit without a word, but the raw mode of its decoder tells.
                mode = picture.mode + " 16-bit" * any(";16" in str(tile[3]) for tile in picture.tile)
                if mode not in modes or getattr(picture, "n_frames", 1) > 1:
                    raise UserError(f"{path}: {expected} is expected, this is {mode} with "
                                    f"{getattr(picture, 'n_frames', 1)} frame(s); restore the original")
                return np.asarray(picture.convert("RGB" if "L" not in modes else "L"))
    except UserError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever a broken file makes them stumble over.
        raise UserError(f"{path}: cannot be decoded, is it cut short or no image at all? "
                        f"Restore the original ({type(error).__name__})") from None


def read_image(path, size=None):
    """uint8 `(height, width, 3)`, RGB. Raises `UserError` for all else than 8-bit RGB of `size`, or black."""
    image = _decode(path, ("RGB",), "8-bit RGB", size)
    if image.max() < 16:
        raise UserError(f"{path}: the image is all black; restore the original")
    return image


def read_mask(path, size=None):
    """bool `(height, width)`. Raises `UserError` for anything but black and white of `size`.

    White is 255 or, where that is the largest value, 1. DRIVE's second observer holds 3 and 253, from its
    palette: so much is let pass, other grey levels tell of a lossy or scaled copy.
    """
    mask = _decode(path, ("L", "P", "1"), "black and white", size)
    if mask.max() == 1:
        mask = mask * 255
    grey = mask[(mask > 3) & (mask < 252)]
    if grey.size:
        raise UserError(f"{path}: holds the grey value {grey[0]} where only black (0) and white (255) are "
                        "expected, was it scaled or saved as JPEG? Restore the original")
    return mask > 127


def read_photograph(path):
    """A photograph as uint8 `(height, width, 3)`, RGB, turned upright.

    JPEG, PNG, TIFF (the first page), GIF (the first frame), BMP or PPM, of 8 or 16 bit; transparency becomes black.

    Raises:
        UserError: It cannot be read, has more than 40 megapixels or a side of fewer than 64 pixels, or is all black.
    """
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as picture:
            if picture.width * picture.height > MEGAPIXELS * 1e6:
                raise UserError(f"{path}: more than {MEGAPIXELS} megapixels; scale it down")
            image = eight_bit_rgb(picture, path)
    except UserError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever a broken file makes them stumble over.
        reason = getattr(error, "strerror", None) or "cannot be decoded, is it cut short or no image at all?"
        raise UserError(f"{path}: {reason} ({type(error).__name__})") from None
    if image.max() < 16 or min(image.shape[:2]) < 64:
        raise UserError(f"{path}: {'all black' if image.max() < 16 else 'smaller than 64 pixels'}, no photograph")
    return image


def eight_bit_rgb(picture, path):
    if picture.mode == "RGB" and ";16" in str(picture.tile):
        # Pillow would keep the upper eight bits of each colour: of a 12-bit camera's, next to nothing.
        return highest_eight_bits(cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)[..., ::-1])
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I"):
        return np.stack([highest_eight_bits(np.asarray(picture).clip(0))] * 3, axis=-1)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "black"), picture)
    return np.array(picture.convert("RGB"))


def highest_eight_bits(array):
    """uint8 of whole numbers: 12-bit cameras write 16-bit files, so the highest bit in use becomes that of eight."""
    return (array >> max(int(array.max()).bit_length() - 8, 0)).astype("uint8")


def pad(image, height, width):
    """Centres `image` on a black canvas; an odd pixel goes to the right and to the bottom (authors' code)."""
    top, left = (height - image.shape[0]) // 2, (width - image.shape[1]) // 2
    if min(top, left) < 0:
        raise ValueError(f"an image of {image.shape[:2]} does not fit into {(height, width)}")
    widths = ((top, height - image.shape[0] - top), (left, width - image.shape[1] - left))
    return np.pad(image, widths + ((0, 0),) * (image.ndim - 2))


def crop(padded, height, width):
    """Undoes `pad`: the centre of `padded`, of shape `(height, width)`."""
    top, left = (padded.shape[0] - height) // 2, (padded.shape[1] - width) // 2
    return padded[top : top + height, left : left + width]
