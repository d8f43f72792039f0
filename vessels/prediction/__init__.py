"""From a photograph to a map, and to numbers."""

from vessels.prediction.maps import predict_photograph


def segment(model, image, diameters=None):
    """Vessel probability of each pixel of a photograph of any size and camera.

    The field of view is found, and the photograph scaled so that the network sees it as wide as it has learned.

    Args:
        model: The network, as `build_rsan(weights="any")` gives it.
        image: uint8 `(height, width, 3)`, RGB.
        diameters: How wide the network should see the field of view, in pixels, of several the one at which it is most
            confident; by default, `model.diameters`.

    Returns:
        float32 `(height, width)` in [0, 1], 0 outside the field of view.

    Raises:
        ValueError: `image` is something else.
    """
    return predict_photograph(model, image, diameters or model.diameters).probability
