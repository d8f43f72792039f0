"""From a photograph to a probability map, and to measures."""

from vessels.prediction.maps import predict_photograph


def segment(model, image, diameters=None):
    """Vessel probability of each pixel of a photograph of any size, from any camera.

    The photograph is scaled so that its field of view is as wide as in the network's training.

    Args:
        model: The network, as `build_rsan(weights="any")` returns it.
        image: uint8 `(height, width, 3)`, RGB.
        diameters: Widths in pixels to which the field of view is scaled, of which the maps are averaged; by default,
            `model.diameters`, which `build_rsan(weights=...)` sets.

    Returns:
        float32 `(height, width)` in [0, 1], 0 outside the field of view.

    Raises:
        ValueError: `image` is not uint8 `(height, width, 3)`; or the network has no `diameters` and none are given.
    """
    diameters = diameters or getattr(model, "diameters", None)
    if not diameters:
        raise ValueError("give diameters: the widths in pixels of the fields of view on which the network was trained")
    return predict_photograph(model, image, diameters).probability
