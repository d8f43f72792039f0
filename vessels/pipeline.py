"""From examples to batches, and from the network back to probability maps of the image's own size."""

import dataclasses

import cv2
import keras
import numpy as np

# With one worker, Keras leaves batches to tf.data's autotuning, whose thread can sleep through the end of an epoch: a
# training pinned to one core lost a quarter of its time. Order and content of the batches are the same.
WORKERS = 2


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


def predict_image(model, image, side=None):
    """Vessel probability of each pixel of a photograph, in one pass over the whole image.

    Args:
        model: The network.
        image: uint8 `(height, width, 3)`, RGB.
        side: Side of the square that the image is padded to, a multiple of 8 (592 for DRIVE,
            1008 for CHASE DB1); by default, the next multiple of 8 of each side.

    Returns:
        float32 `(height, width)` in [0, 1].
    """
    height, width = image.shape[:2]
    padded = pad(image, side or -(-height // 8) * 8, side or -(-width // 8) * 8)
    probability = model.predict_on_batch(padded[None].astype("float32") / 255)
    return crop(np.asarray(probability, "float32")[0, ..., 0], height, width)


class Patches(keras.utils.PyDataset):
    """Augmented patches, centred anywhere inside the fields of view.

    Each patch is one affine warp straight from its image, so that a turned patch shows
    what lies beside it and no filled corner. Every batch is a function of `(seed, epoch, index)`
    alone: a resumed run sees the same data.

    Args:
        examples: list of `Example`.
        patch_size: Side in pixels, a multiple of 8.
        batch_size, steps: Patches in a batch, batches in an epoch.
        seed, epoch: Of the random stream.

    Item: `(x, y)`, float32 `(batch, patch, patch, 3)` in [0, 1] and `(batch, patch, patch, 1)` in {0, 1}.
    """

    def __init__(self, examples, patch_size, batch_size, steps, seed=0, epoch=0):
        super().__init__(workers=WORKERS)
        self.examples = examples
        self.patch_size, self.batch_size, self.steps = patch_size, batch_size, steps
        self.seed, self.epoch = seed, epoch
        self.centres = [np.argwhere(example.fov) for example in examples]

    def __len__(self):
        return self.steps

    def on_epoch_end(self):
        self.epoch += 1

    def __getitem__(self, index):
        rng = np.random.default_rng((self.seed, self.epoch, index))
        images, labels = zip(*(self.patch(rng) for _ in range(self.batch_size)), strict=True)
        return np.stack(images), np.stack(labels)[..., None]

    def patch(self, rng):
        which = rng.integers(len(self.examples))
        example, centres = self.examples[which], self.centres[which]
        to_image = random_affine(rng, centres[rng.integers(len(centres))][::-1], self.patch_size)

        def warp(array, interpolation):
            size = (self.patch_size, self.patch_size)
            return cv2.warpAffine(array, to_image, size, flags=interpolation | cv2.WARP_INVERSE_MAP)

        image = warp(example.image, cv2.INTER_LINEAR).astype("float32") / 255
        label = warp(example.label.astype("float32"), cv2.INTER_LINEAR) >= 0.5
        return random_colour(rng, image), label.astype("float32")


def random_affine(rng, centre, size):
    """Affine map `(2, 3)` from patch to image coordinates: flips and quarter turns for half of the patches,
    which leave each pixel as it was taken, any angle and a scale of 0.8 to 1.25 for the others.
    """
    angle, scale = rng.integers(4) * np.pi / 2, 1.0
    if rng.random() < 0.5:
        angle, scale = rng.uniform(0, 2 * np.pi), 1.25 ** rng.uniform(-1, 1)
    flip = rng.choice([-1, 1])
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.array([[cos * flip, -sin], [sin * flip, cos]])
    middle = (size - 1) / 2
    # A whole-pixel offset keeps quarter turns free of interpolation.
    offset = np.asarray(centre) + (0.5 if size % 2 == 0 else 0) - linear @ [middle, middle]
    return np.column_stack([linear, offset])


def random_colour(rng, image):
    """Brightness, contrast, gain of each channel and noise, as cameras and exposures differ."""
    contrast = rng.uniform(0.8, 1.2)
    gain = contrast * rng.uniform(0.9, 1.1, 3)
    mean = image.mean((0, 1))
    image = (image - mean) * gain + mean + rng.uniform(-0.1, 0.1)
    if rng.random() < 0.5:
        image += rng.normal(0, rng.uniform(0, 0.02), image.shape)
    return np.clip(image, 0, 1, dtype="float32", casting="same_kind")


@dataclasses.dataclass(frozen=True)
class AnyCamera:
    """How strongly patches for the general network vary; pairs are ranges, drawn from evenly.

    Attributes:
        diameter: Of the field of view, in pixels of the patch (its logarithm is drawn evenly).
        gamma: Exponent of two of the power to which values in [0, 1] are raised.
        saturation: Of the colours, 1 being the photograph's own.
        grey: Share of patches without any colour.
        contrast, gain: Of all channels, and of each, about their means.
        shift: Of all channels, and again of each, in [0, 1].
        slope: How much lighter one side of the patch is than its middle.
        blur, noise: Standard deviations, in pixels and in [0, 1]; of half of the patches each.
        jpeg: Quality; of a third of the patches.
    """

    diameter: tuple[float, float] = (350, 1050)
    gamma: tuple[float, float] = (-0.8, 0.8)
    saturation: tuple[float, float] = (0.5, 1.4)
    grey: float = 0.1
    contrast: tuple[float, float] = (0.75, 1.25)
    gain: tuple[float, float] = (0.85, 1.15)
    shift: tuple[float, float] = (-0.08, 0.08)
    slope: tuple[float, float] = (0, 0.3)
    blur: tuple[float, float] = (0, 1.2)
    noise: tuple[float, float] = (0, 0.03)
    jpeg: tuple[float, float] = (40, 95)


class AnyCameraPatches(Patches):
    """Patches as any camera might have taken them: any scale, any angle, other colours, light and sharpness.

    Args, item and random stream as those of `Patches`; `strength` is an `AnyCamera`. What lies outside the field
    of view is black, as it is for prediction.
    """

    def __init__(self, examples, *arguments, strength, **keywords):
        super().__init__(examples, *arguments, **keywords)
        self.strength = strength
        self.planes = [np.dstack([example.image * example.fov[..., None], 255 * example.label.astype("uint8"),
                                  255 * example.fov.astype("uint8")]) for example in examples]
        self.diameters = [max(cv2.boundingRect(example.fov.astype("uint8"))[2:]) for example in examples]

    def patch(self, rng):
        which = rng.integers(len(self.examples))
        centre = self.centres[which][rng.integers(len(self.centres[which]))][::-1]
        low, high = np.log(self.strength.diameter)
        scale = self.diameters[which] / np.exp(rng.uniform(low, high))  # pixels of the photograph for each of the patch
        angle, flip = rng.uniform(0, 2 * np.pi), rng.choice([-1, 1])
        planes = warp_patch(self.planes[which], centre, self.patch_size, scale, angle, flip)
        inside = planes[..., 4] >= 128
        image = any_camera(rng, planes[..., :3].astype("float32") / 255, inside, self.strength)
        return image, (planes[..., 3] >= 128).astype("float32")


def warp_patch(planes, centre, size, scale, angle, flip):
    """uint8 `(size, size, channels)`: cut out of `planes` about `centre`, turned; smoothed first where that shrinks."""
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.array([[cos * flip, -sin], [sin * flip, cos]])
    reach = int(scale * size * 0.71) + 8
    x, y = (int(value) for value in centre)
    left, top = max(x - reach, 0), max(y - reach, 0)
    part = planes[top : y + reach, left : x + reach]
    if scale > 1:  # as far as the mean over `scale` pixels, with which photographs are scaled down, smooths
        part = cv2.GaussianBlur(part, (0, 0), np.sqrt((scale**2 - 1) / 12))
    offset = np.array([x - left, y - top]) - linear @ ([(size - 1) / 2] * 2)
    return cv2.warpAffine(part, np.column_stack([linear, offset]), (size, size),
                          flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def any_camera(rng, image, inside, strength):
    """float32 `(size, size, 3)` in [0, 1]: the patch as another camera might have taken it; black where not `inside`."""
    image = image ** np.float32(2 ** rng.uniform(*strength.gamma))
    grey = image @ np.array([0.3, 0.6, 0.1], "float32")
    saturation = 0 if rng.random() < strength.grey else rng.uniform(*strength.saturation)
    image = grey[..., None] + saturation * (image - grey[..., None])
    mean = image[inside].mean(axis=0) if inside.any() else np.zeros(3)
    gain = rng.uniform(*strength.contrast) * rng.uniform(*strength.gain, 3) ** (saturation > 0)
    shift = rng.uniform(*strength.shift) + rng.uniform(*strength.shift, 3) * (saturation > 0)
    ramp = np.linspace(-1, 1, len(image))
    angle, slope = rng.uniform(0, 2 * np.pi), rng.uniform(*strength.slope)
    light = 1 + slope * (np.cos(angle) * ramp + np.sin(angle) * ramp[:, None])
    image = ((image - mean) * gain + mean + shift) * light[..., None]
    if rng.random() < 0.5 and (sigma := rng.uniform(*strength.blur)) > 0.2:
        image = cv2.GaussianBlur(image, (0, 0), sigma)
    if rng.random() < 0.5:
        image += rng.normal(0, rng.uniform(*strength.noise), image.shape)
    image = np.where(inside[..., None], image.clip(0, 1), 0).astype("float32")
    if rng.random() < 1 / 3:
        quality = int(rng.uniform(*strength.jpeg))
        _, coded = cv2.imencode(".jpg", np.round(255 * image[..., ::-1]).astype("uint8"),
                                [cv2.IMWRITE_JPEG_QUALITY, quality])
        image = cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1].astype("float32") / 255
        image = np.where(inside[..., None], image, np.float32(0))
    return image


class WholeImages(keras.utils.PyDataset):
    """The authors' batches: whole padded images in a new order each epoch, no augmentation.

    Item: `(x, y)`, float32 `(batch, side, side, 3)` in [0, 1] and `(batch, side, side, 1)` in {0, 1}.
    """

    def __init__(self, examples, side, batch_size, seed=0, epoch=0):
        super().__init__(workers=WORKERS)
        self.images = np.stack([pad(example.image, side, side) for example in examples])
        self.labels = np.stack([pad(example.label, side, side) for example in examples])
        self.batch_size, self.seed, self.epoch = batch_size, seed, epoch

    def __len__(self):
        return -(-len(self.images) // self.batch_size)

    def on_epoch_end(self):
        self.epoch += 1

    def __getitem__(self, index):
        order = np.random.default_rng((self.seed, self.epoch)).permutation(len(self.images))
        chosen = order[index * self.batch_size : (index + 1) * self.batch_size]
        return self.images[chosen].astype("float32") / 255, self.labels[chosen, ..., None].astype("float32")
