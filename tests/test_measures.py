import cv2
import numpy as np
import pytest

from vessels.data import published, synthetic
from vessels.prediction.maps import Prediction, resize
from vessels.prediction.measures import UNITS, measure, microns_per_pixel
from vessels.prediction.photographs import MEASURED, measure_map

SIDE = 400
EVERYWHERE = np.ones((SIDE, SIDE), bool)
ROWS, COLUMNS = np.mgrid[:SIDE, :SIDE]


def line(width, degrees=0, length=250, row=199.6, column=200.3):
    """The pixels whose centres lie in a rectangle: its middle, its length and its direction are given."""
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    x, y = COLUMNS - column, ROWS - row
    return (abs(x * cos + y * sin) <= length / 2) & (abs(y * cos - x * sin) < width / 2)


def ring(radius, width):
    return abs(np.hypot(ROWS - 200.3, COLUMNS - 199.7) - radius) < width / 2


def tree(forks, width, length=110, degrees=-90, x=200.0, y=390.0):
    """A trunk that forks the given number of times, each time finer, shorter and at 35 degrees to both sides."""
    towards = x + length * np.cos(np.deg2rad(degrees)), y + length * np.sin(np.deg2rad(degrees))
    drawn = line(width, degrees, length, (y + towards[1]) / 2, (x + towards[0]) / 2)
    for turn in (-35, 35) if forks else ():
        drawn = drawn | tree(forks - 1, 0.8 * width, 0.72 * length, degrees + turn, *towards)
    return drawn


def pixels_long(found):
    return found["length_density"] * EVERYWHERE.sum() / SIDE


@pytest.fixture(scope="module")
def eye():
    return synthetic.make(published.CHASEDB1, "validation")[0]


@pytest.mark.parametrize("width", [2, 3, 5, 8, 12, 20])
@pytest.mark.parametrize("degrees", [0, 10, 22.5, 30, 45, 60, 77, 90])
def test_lines_at_any_angle_have_their_width_and_length(width, degrees):
    mask = line(width, degrees)
    found = measure(mask, EVERYWHERE)
    assert pixels_long(found) == pytest.approx(250, rel=0.02)
    assert found["width_px"] == pytest.approx(mask.sum() / 250, rel=0.02)
    assert found["width_px"] == pytest.approx(found["widest_px"])
    assert found["width_px"] == pytest.approx(width, abs=0.3)  # pixels cannot show it exactly
    assert (found["branch_points"], found["ends"]) == (0, 2)
    assert found["tortuosity"] == pytest.approx(1, abs=0.005)


def test_widest_tenth_and_mean_of_vessels_side_by_side():
    found = measure(line(3, row=100) | line(3, row=200) | line(9, row=300), EVERYWHERE)
    assert found["width_px"] == pytest.approx(5, rel=0.02)
    assert found["widest_px"] == pytest.approx(9, rel=0.02)
    assert found["widest_permille"] == pytest.approx(1000 * 9 / SIDE, rel=0.02)
    assert found["density"] == pytest.approx(15 * 250 / SIDE**2, rel=0.02)


def test_widest_tenth_takes_no_more_than_a_tenth_of_the_length():
    fine = line(3, row=100, length=380) | line(3, row=200, length=380)
    found = measure(fine | line(9, row=300, length=40), EVERYWHERE)
    assert found["widest_px"] == pytest.approx((40 * 9 + 40 * 3) / 80, rel=0.05)


@pytest.mark.parametrize(("radius", "width"), [(80, 3), (150, 3), (150, 6)])
def test_half_circles_are_longer_than_their_chord_by_half_of_pi(radius, width):
    found = measure(ring(radius, width) & (ROWS > 200), EVERYWHERE)
    assert found["tortuosity"] == pytest.approx(np.pi / 2, rel=0.02)


def test_a_branch_that_nearly_closes_weighs_no_more_than_its_chord():
    nearly_closed = ring(60, 3) & ~((abs(COLUMNS - 199.7) < 8) & (ROWS < 200))
    found = measure(nearly_closed | line(3, row=350, length=300), EVERYWHERE)
    assert found["tortuosity"] == pytest.approx((2 * np.pi * 60 - 16 + 300) / (16 + 300), rel=0.03)


@pytest.mark.parametrize("radius", [20, 80, 150])
def test_rings_have_neither_ends_nor_a_chord(radius):
    found = measure(ring(radius, 5), EVERYWHERE)
    assert (found["branch_points"], found["ends"]) == (0, 0)
    assert pixels_long(found) == pytest.approx(2 * np.pi * radius, rel=0.01)
    assert found["width_px"] == pytest.approx(5, rel=0.02)
    assert np.isnan(found["tortuosity"])


@pytest.mark.parametrize("forks", [1, 2, 3])
@pytest.mark.parametrize("width", [3, 5, 9, 14])
def test_trees_have_the_branch_points_and_ends_they_were_drawn_with(forks, width):
    found = measure(tree(forks, width), EVERYWHERE)
    assert (found["branch_points"], found["ends"]) == (2**forks - 1, 2**forks + 1)
    assert found["tortuosity"] == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("width", [3, 5, 9, 14])
def test_a_crossing_counts_once(width):
    found = measure(line(width, 20) | line(width, 110), EVERYWHERE)
    assert (found["branch_points"], found["ends"]) == (1, 4)


@pytest.mark.parametrize(("sticks_out", "branch_points"), [(2, 0), (4, 0), (5, 0), (8, 1), (12, 1), (40, 1)])
def test_what_sticks_out_by_less_than_the_radius_is_no_branch(sticks_out, branch_points):
    """On a vessel whose radius is 6."""
    found = measure(line(12) | line(4, 90, 2 * (6 + sticks_out)) & (ROWS < 200), EVERYWHERE)
    assert (found["branch_points"], found["ends"]) == (branch_points, 2 + branch_points)


def test_blobs_are_no_vessels():
    clean, speckled = line(5), line(5)
    for row in range(20, 180, 20):
        speckled |= np.hypot(ROWS - row, COLUMNS - 100) < row / 20
    clean, speckled = measure(clean, EVERYWHERE), measure(speckled, EVERYWHERE)
    assert speckled.pop("density") > clean.pop("density")
    del clean["fractal_dimension"], speckled["fractal_dimension"]  # includes blobs, unlike the other measures
    assert speckled == clean


@pytest.mark.parametrize("side", [50, 100, 200, 300])
def test_fractal_dimensions_of_a_square_and_a_line(side):
    square, straight = np.zeros_like(EVERYWHERE), np.zeros_like(EVERYWHERE)
    square[37 : 37 + side, 11 : 11 + side] = straight[37, 11 : 11 + side] = True
    assert measure(square, EVERYWHERE)["fractal_dimension"] == pytest.approx(2)
    assert measure(straight, EVERYWHERE)["fractal_dimension"] == pytest.approx(1)


@pytest.mark.parametrize("scale", [0.5, 2])
def test_half_and_double_size_change_nothing_by_more_than_a_twentieth(eye, scale):
    soft = cv2.GaussianBlur(eye.label.astype("float32"), (0, 0), 0.8)  # like a network's map: few values are 0.5
    size = round(scale * soft.shape[1]), round(scale * soft.shape[0])
    scaled = [cv2.resize(array.astype("float32"), size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
              for array in (soft, eye.fov)]
    before, after = measure(soft >= 0.5, eye.fov), measure(*(array >= 0.5 for array in scaled))
    for name in UNITS.keys() & before.keys() - {"width_px", "widest_px", "branch_points", "ends"}:
        assert after[name] == pytest.approx(before[name], rel=0.05), name
    for name in ("width_px", "widest_px"):
        assert after[name] == pytest.approx(scale * before[name], rel=0.05), name


def test_a_wide_map_is_measured_at_another_size_but_in_its_own_pixels(eye):
    side = 3 * MEASURED
    probability = resize(cv2.GaussianBlur(eye.label.astype("float32"), (0, 0), 1), side, side)
    fov = resize(eye.fov.astype("uint8"), side, side) > 0
    wide = measure_map(Prediction(probability, fov, float(side), 1.0, 0.8), 0.5, 10.0)
    whole = measure(probability >= 0.5, fov, side, 10.0)
    for name in whole.keys() - {"ends"}:
        assert wide[name] == pytest.approx(whole[name], rel=0.1 if name == "branch_points" else 0.02), name
    assert type(wide["ends"]) is int


def test_only_the_field_of_view_counts_and_gives_the_diameter():
    fov = np.hypot(ROWS - 199.5, COLUMNS - 199.5) < 150
    found = measure(line(5, length=100) | line(5, 0, 40, 75, 75), fov)
    assert found == measure(line(5, length=100), fov, diameter=300)
    assert found["density"] == pytest.approx(500 / (np.pi * 150**2), rel=0.02)
    assert found["length_density"] == pytest.approx(100 * 300 / (np.pi * 150**2), rel=0.02)
    assert found["width_permille"] == pytest.approx(1000 * 5 / 300, rel=0.02)


def test_micrometres_and_millimetres():
    found = measure(line(5), EVERYWHERE, microns_per_pixel=10)
    assert list(found) == list(UNITS)
    assert found["width_um"] == pytest.approx(50, rel=0.02)
    assert found["widest_um"] == pytest.approx(50, rel=0.02)
    assert found["length_density_mm"] == pytest.approx(2.5 / 4**2, rel=0.02)  # mm in a square of 4 mm by 4 mm
    assert list(measure(line(5), EVERYWHERE)) == [name for name in UNITS if not name.endswith(("_um", "_mm"))]


def test_micrometres_from_the_angle_of_view():
    reduced_eye = 1000 * np.deg2rad(1) * (24 - 1.82) / 1.336  # micrometres for a degree
    assert microns_per_pixel(45, 537) == pytest.approx(45 * reduced_eye / 537, rel=1e-3)


@pytest.mark.parametrize("marked", [[], [(50, 50)], [(50, 50), (50, 51)]])
def test_no_vessels_leave_nothing_to_measure(marked):
    mask = np.zeros_like(EVERYWHERE)
    for place in marked:
        mask[place] = True
    found = measure(mask, EVERYWHERE)
    assert found["density"] == len(marked) / SIDE**2
    assert (found["length_density"], found["branch_points"], found["ends"]) == (0, 0, 0)
    assert all(np.isnan(found[name]) for name in ("width_px", "widest_permille", "tortuosity"))


@pytest.mark.parametrize("fov", [EVERYWHERE[:-1], ~EVERYWHERE])
def test_refuses_a_field_of_view_that_does_not_fit(fov):
    with pytest.raises(ValueError, match="field of view"):
        measure(line(5), fov)
