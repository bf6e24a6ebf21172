"""Resize and Upsample in the reference: against onnxruntime, derivatives, and by hand.

Where onnxruntime's CPU leaves the specification, a test of its own says so.
"""

from typing import Any

import numpy as np
import onnx
import pytest
from equations import RELUS, assert_derivative, by_onnxruntime, forward, layer, network, reverse

from revgraph.errors import RevgraphError

NOTHING = np.zeros(0, np.float32)
COORDINATES = {  # and the opset that has it
    "asymmetric": 11,
    "half_pixel": 13,
    "pytorch_half_pixel": 18,
    "align_corners": 19,
    "half_pixel_symmetric": 19,
    "tf_crop_and_resize": 18,
    "tf_half_pixel_for_nn": 11,
}
NEAREST = ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
FACTORS = [0.5, 2, 3, 1 / 3, 1, 0.6, 1.7, 2.5, 0.7, 1.1]


def resize(
    x: np.ndarray,
    opset: int = 13,
    roi: Any = NOTHING,
    scales: Any = None,
    sizes: Any = None,
    **attributes: Any,
) -> onnx.ModelProto:
    weights = {"roi": np.asarray(roi, np.float32), "scales": NOTHING}
    if scales is not None:
        weights["scales"] = np.asarray(scales, np.float32)
    if sizes is not None:
        weights["sizes"] = np.asarray(sizes, np.int64)
    return network([layer("Resize", "x", *weights, **attributes)], x, weights, opset)


def random_resize(mode: str, coordinates: str, seed: int) -> tuple[onnx.ModelProto, np.ndarray]:
    rng = np.random.default_rng([len(mode), len(coordinates), seed])
    opset = COORDINATES[coordinates]
    rank = 2 if mode == "cubic" else int(rng.integers(1, 4))
    x = rng.standard_normal((2, 3, *rng.integers(1, 9, rank))).astype(np.float32)
    attributes: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": coordinates}
    match mode:
        case "nearest":
            attributes["nearest_mode"] = rng.choice(NEAREST)
        case "cubic":
            attributes["cubic_coeff_a"] = rng.choice([-0.5, -0.75])
            attributes["exclude_outside"] = rng.integers(2)
    crop = coordinates == "tf_crop_and_resize"
    if crop:
        attributes["extrapolation_value"] = 7.0
    if opset >= 18 and mode != "nearest" and not crop:
        attributes["antialias"] = rng.integers(2)
    roi = np.stack([rng.uniform(-0.2, 0.4, rank), rng.uniform(0.6, 1.2, rank)])
    lead = np.array([[0, 0], [1, 1]])
    if by_size := rng.integers(2):
        how, values = "sizes", rng.integers(1, 13, rank)
    else:
        how, values = "scales", rng.choice(FACTORS, rank)
    if opset >= 18 and rng.integers(2):
        attributes["axes"] = range(2, 2 + rank)
        if by_size and not crop:
            attributes["keep_aspect_ratio_policy"] = rng.choice(["stretch", "not_larger", "not_smaller"])
    else:
        values = [*(x.shape[:2] if by_size else (1, 1)), *values]
        roi = np.concatenate([lead, roi], axis=1)
    return resize(x, opset, roi=roi.ravel() if crop else NOTHING, **{how: values}, **attributes), x


CASES = pytest.mark.parametrize(
    ("mode", "coordinates", "seed"),
    [(m, c, seed) for m in ("nearest", "linear", "cubic") for c in COORDINATES for seed in range(25)],
)


@CASES
def test_resize_agrees_with_onnxruntime(mode: str, coordinates: str, seed: int) -> None:
    model, x = random_resize(mode, coordinates, seed)
    # float32 weights, which cancel where exclude_outside divides by a small sum
    np.testing.assert_allclose(forward(model, x), by_onnxruntime(model, x), rtol=1e-4, atol=1e-4)


@CASES
def test_resize_reverses_to_its_derivative(mode: str, coordinates: str, seed: int) -> None:
    model, x = random_resize(mode, coordinates, seed)
    if len(np.unique(forward(model, x))) > 1:  # no pixel, or the extrapolation value, has no derivative
        assert_derivative(model, x)


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("nearest", NEAREST)
def test_the_nearest_pixel_is_onnxruntimes_at_every_size(coordinates: str, nearest: str) -> None:
    """Ties and float32 coordinates included; 1 to 9 pixels from 1 to 12."""
    how = {"coordinate_transformation_mode": coordinates, "nearest_mode": nearest}
    for size in range(1, 13):
        x = np.arange(size, dtype=np.float32)
        for out in range(1, 10):
            model = resize(x, COORDINATES[coordinates], [0, 1], sizes=[out], **how)
            np.testing.assert_array_equal(forward(model, x), by_onnxruntime(model, x))


@pytest.mark.parametrize("opset", [7, 9, 10])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("seed", range(10))
def test_upsample_and_the_first_resize_agree_with_onnxruntime(opset: int, mode: str, seed: int) -> None:
    rng = np.random.default_rng([opset, seed])
    scales = np.array([1, 1, *rng.choice([f for f in FACTORS if f >= 1 or opset == 10], 2)], np.float32)
    x = rng.standard_normal((2, 3, *rng.integers(2, 9, 2)), np.float32)
    if opset < 9:
        model = network([layer("Upsample", mode=mode, scales=scales)], x, opset=opset)
    else:
        node = layer("Upsample" if opset < 10 else "Resize", "x", "scales", mode=mode)
        model = network([node], x, {"scales": scales}, opset)
    # float32 rounding
    np.testing.assert_allclose(forward(model, x), by_onnxruntime(model, x), rtol=1e-5, atol=1e-6)
    assert_derivative(model, x)


# ----- By hand -----


@pytest.mark.parametrize(
    ("attributes", "y", "x_hat"),
    [
        ({"mode": "nearest"}, [1, 1, 2, 2], [11, 22]),
        ({"mode": "linear"}, [1, 1.25, 1.75, 2], [10 + 0.75 + 2.5, 0.25 + 7.5 + 12]),
        ({"mode": "linear", "coordinate_transformation_mode": "asymmetric"}, [1, 1.5, 2, 2], [10.5, 22.5]),
        ({"mode": "linear", "coordinate_transformation_mode": "align_corners"}, [1, 4 / 3, 5 / 3, 2],
         [10 + 2 / 3 + 10 / 3, 1 / 3 + 20 / 3 + 12]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("relu", RELUS)
def test_resize_reverses_by_hand(
    attributes: dict[str, str], y: list[float], x_hat: list[float], relu: str
) -> None:
    x, p = np.array([[[1.0, 2.0]]]), np.array([[[10.0, 1.0, 10.0, 12.0]]])
    model = resize(x, scales=[1, 1, 2], **attributes)
    np.testing.assert_allclose(forward(model, x), [[y]])
    np.testing.assert_allclose(reverse(model, x, p, relu), [[x_hat]])


# ----- Where onnxruntime leaves the specification, and the reference follows it -----


def test_an_axis_of_scale_1_is_copied_whatever_the_region() -> None:
    x = np.arange(5, dtype=np.float32)[None]
    crop = {"coordinate_transformation_mode": "tf_crop_and_resize", "mode": "linear", "opset": 13}
    model = resize(x, roi=[0, 0.25, 1, 0.75], sizes=[1, 5], **crop)
    np.testing.assert_array_equal(by_onnxruntime(model, x), x)  # the specification: 1, 1.5, 2, 2.5, 3
    np.testing.assert_array_equal(forward(model, x), x)


def test_scales_that_change_no_size_change_nothing() -> None:
    x = np.arange(5, dtype=np.float32)[None]
    model = resize(x, scales=[1, 1.1], mode="linear", coordinate_transformation_mode="asymmetric")
    np.testing.assert_array_equal(by_onnxruntime(model, x), x)  # the specification: 0, 0.91, 1.82, ...
    np.testing.assert_array_equal(forward(model, x), x)


def test_sizes_are_rounded_down_in_float32() -> None:
    x = np.arange(10, dtype=np.float32)
    model = resize(x, scales=[0.7])  # 10 * float32(0.7) is 6.9999999, and 7 in float32
    assert forward(model, x).shape == by_onnxruntime(model, x).shape == (7,)


def test_antialias_with_a_region_is_refused() -> None:
    x = np.arange(5, dtype=np.float32)
    crop = {"coordinate_transformation_mode": "tf_crop_and_resize", "mode": "linear", "antialias": 1}
    with pytest.raises(RevgraphError, match="onnxruntime extrapolates axes that antialias leaves alone"):
        forward(resize(x, 18, roi=[0, 1], sizes=[7], **crop), x)
