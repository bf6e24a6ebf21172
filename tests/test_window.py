"""Sliding windows against their definition, element by element."""

import itertools

import numpy as np
import pytest

from revgraph.window import Window, explicit_pads

GEOMETRIES = [
    pytest.param(geometry, id="-".join(map(str, geometry)))
    for geometry in itertools.product(range(1, 5), range(1, 4), range(1, 4), range(2), (0, 2))
]


def window(kernel, stride, dilation, begin, end):
    return Window((kernel,), (stride,), (dilation,), (begin,), (end,))


def elements(window, outputs, axis=0):
    """For each window, the positions of its taps; those below 0 and from the size on are padding."""
    steps, taps = range(outputs), range(window.kernel[axis])
    return [
        [u * window.strides[axis] + t * window.dilations[axis] - window.begin[axis] for t in taps]
        for u in steps
    ]


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_one_axis(geometry):
    slide = window(*geometry)
    seen = elements(slide, outputs=6)
    assert slide.extent == (seen[0][-1] - seen[0][0] + 1,)
    assert seen[3][slide.centre[0]] == sorted(seen[3])[(len(seen[3]) - 1) // 2]
    shared = len(set(itertools.chain(*seen))) < 6 * len(seen[0])
    assert not (slide.disjoint and shared)
    if geometry[2] == 1:  # Windows with holes may interleave; calling them not disjoint is safe.
        assert slide.disjoint is not shared
    for size in range(1, 20):
        assert slide.uncovered([6], [size]) == (size - 1 - seen[-1][-1],)


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("padding", [False, True])
def test_what_an_average_counts(geometry, padding):
    slide, size = window(*geometry), 7
    begin, end = geometry[3:]
    counted = range(-begin, size + end) if padding else range(size)
    expected = [sum(v in counted for v in taps) for taps in elements(slide, outputs=4)]
    counts = slide.counts([4], [size], padding)
    assert counts.dtype == np.int64
    assert counts.tolist() == expected


def test_counts_of_several_axes_multiply():
    slide = Window((3, 2, 2), (2, 1, 2), (1, 2, 1), (1, 0, 1), (0, 1, 1))
    outputs, size = (3, 4, 2), (6, 5, 3)
    expected = np.zeros(outputs, int)
    for u in np.ndindex(*outputs):
        taps = (elements(slide, n, axis)[i] for axis, (n, i) in enumerate(zip(outputs, u, strict=True)))
        expected[u] = sum(
            all(0 <= i < n for i, n in zip(v, size, strict=True)) for v in itertools.product(*taps)
        )
    np.testing.assert_array_equal(slide.counts(outputs, size, padding=False), expected)


def test_attributes_and_back():
    attributes = {
        "kernel_shape": [3, 2],
        "strides": [2, 1],
        "dilations": [1, 4],
        "pads": [1, 2, 3, 4],
    }
    slide = Window.of(attributes)
    assert (slide.begin, slide.end) == ((1, 2), (3, 4))
    assert slide.attributes == attributes
    assert Window.of({}, (3, 2)) == Window.of({"kernel_shape": [3, 2], "pads": [0] * 4}, (9, 9))


@pytest.mark.parametrize(
    ("kernel", "centre"), [((2, 2), (0, 0)), ((3, 3), (1, 1)), ((1, 4, 5), (0, 1, 2)), ((6,), (2,))]
)
def test_the_kernel_that_picks_the_centre(kernel, centre):
    ones = (1,) * len(kernel)
    one_hot = Window(kernel, ones, ones, ones, ones).one_hot()
    assert one_hot.dtype == np.float32
    assert one_hot.shape == (1, 1, *kernel)
    assert [tuple(at) for at in np.argwhere(one_hot)] == [(0, 0, *centre)]


@pytest.mark.parametrize(
    ("kernel", "stride", "size"), list(itertools.product(range(1, 6), range(1, 5), range(4, 9)))
)
def test_same_pads_fit_one_window_to_every_stride(kernel, stride, size):
    slide = window(kernel, stride, 1, 0, 0)
    upper, lower = (explicit_pads(mode, slide, [size]) for mode in ("SAME_UPPER", "SAME_LOWER"))
    assert upper == lower[::-1]
    assert 0 <= upper[1] - upper[0] <= 1
    windows = (size + sum(upper) - kernel) // stride + 1
    assert windows == len(range(0, size, stride))
    # No less padding would do.
    assert sum(upper) == 0 or (size + sum(upper) - 1 - kernel) // stride + 1 < windows


def test_same_pads_of_several_axes_are_in_the_order_of_onnx():
    slide = Window((2, 4), (1, 1), (1, 1), (0, 0), (0, 0))
    assert explicit_pads("SAME_UPPER", slide, [5, 5]) == [0, 1, 1, 2]
    assert explicit_pads("SAME_LOWER", slide, [5, 5]) == [1, 2, 0, 1]
