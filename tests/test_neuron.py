import re

import numpy as np
import pytest

from revgraph import neuron
from revgraph.errors import RevgraphError

SHAPES = [(2, 5, 4, 3), (3, 6), (1, 4, 7), (2, 3, 2, 3, 2)]


def layer(shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def project(spec, y, seed=0):
    return neuron.project(neuron.parse(spec), y, np.random.default_rng(seed))


def touched(p_row):
    return [tuple(map(int, at)) for at in np.argwhere(p_row)]


# ----- What each SPEC means -----


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("spec", ["max", "channel:1", "centre", "class:1", "random", "mixture"])
@pytest.mark.parametrize("shape", SHAPES)
def test_p_is_like_y(spec, shape, dtype):
    y = layer(shape, dtype=dtype)
    before = y.copy()
    p = project(spec, y)
    assert (p.shape, p.dtype) == (y.shape, y.dtype)
    assert np.isfinite(p).all()
    assert all(row.any() for row in p)
    np.testing.assert_array_equal(y, before)


@pytest.mark.parametrize("spec", ["max", "channel:1", "centre", "class:1"])
@pytest.mark.parametrize("shape", SHAPES)
def test_rows_are_independent(spec, shape):
    y = layer(shape)
    np.testing.assert_array_equal(project(spec, y), np.concatenate([project(spec, row[None]) for row in y]))


@pytest.mark.parametrize("shape", SHAPES)
def test_max(shape):
    y = layer(shape)
    for p_row, y_row in zip(project("max", y), y, strict=True):
        ((at),) = touched(p_row)
        assert y_row[at] == y_row.max()
        assert p_row[at] == 1


def test_max_takes_the_first_of_equals():
    y = np.zeros((1, 3, 2, 2), np.float32)
    y[0, 1, 0, 1] = y[0, 1, 1, 0] = y[0, 2, 0, 0] = 5
    assert touched(project("max", y)[0]) == [(1, 0, 1)]
    assert touched(project("max", np.zeros_like(y))[0]) == [(0, 0, 0)]


def test_channel():
    y = layer((2, 5, 4, 3))
    for p_row, y_row in zip(project("channel:3", y), y, strict=True):
        ((c, h, w),) = touched(p_row)
        assert c == 3
        assert y_row[c, h, w] == y_row[3].max()


@pytest.mark.parametrize("n", range(1, 15))
def test_centre_is_the_authors(n):
    y = layer((1, 4, n, 14 - n + 1))
    matlab = [max(int(np.floor(size * 0.5 + 0.5)), 1) - 1 for size in y.shape[2:]]  # max(round(H*0.5), 1)
    ((c, *position),) = touched(project("centre", y)[0])
    assert position == matlab
    assert y[0, c, *position] == y[0, :, *position].max()


def test_centre_without_spatial_axes_is_max():
    y = layer((3, 6))
    np.testing.assert_array_equal(project("centre", y), project("max", y))


def test_class():
    y = layer((2, 5, 4, 3))
    expected = np.zeros_like(y)
    expected[:, 2] = np.where(y[:, 2] > 0, 1, 0)
    np.testing.assert_array_equal(project("class:2", y), expected)


def test_class_with_nothing_positive_is_the_channel_s_largest():
    y = -np.abs(layer((2, 5, 4, 3)))
    y[1, 2, 0, 0] = 0  # not positive either
    np.testing.assert_array_equal(project("class:2", y), project("channel:2", y))


def test_index():
    p = project("index:4,3,2", layer((2, 5, 4, 3)))
    assert [touched(row) for row in p] == [[(4, 3, 2)], [(4, 3, 2)]]
    assert touched(project("index:5", layer((1, 6)))[0]) == [(5,)]


def test_random_is_any_neuron_but_the_largest_and_another_when_asked_again():
    y, rng = layer((1, 3, 2, 2)), np.random.default_rng(0)
    drawn = [touched(neuron.project(neuron.parse("random"), y, rng)[0]) for _ in range(600)]
    counts = {at: drawn.count([at]) for at in np.ndindex(3, 2, 2)}
    (largest,) = touched(project("max", y)[0])
    assert counts.pop(largest) == 0
    assert 25 < min(counts.values()) <= max(counts.values()) < 90  # 600 / 11 = 54.5


def test_random_is_the_seed_s():
    y = layer((2, 5, 4, 3))
    np.testing.assert_array_equal(project("random", y, 3), project("random", y, 3))


def test_mixture_is_half_normal_over_the_channels_of_the_middle():
    p = project("mixture", layer((1, 4000, 6, 5)))
    column = p[0, :, 2, 2].copy()
    p[0, :, 2, 2] = 0
    assert not p.any()
    assert (column >= 0).all()
    assert column.mean() == pytest.approx(np.sqrt(2 / np.pi), rel=0.05)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int8, np.bool_])
def test_file(tmp_path, whole, dtype):
    y = layer((2, 5, 4))
    values = (layer(y.shape if whole else y.shape[1:], 7) * 3).astype(dtype)
    np.save(tmp_path / "p.npy", values)
    p = project(str(tmp_path / "p.npy"), y)
    assert p.dtype == y.dtype
    np.testing.assert_array_equal(p, np.broadcast_to(values, y.shape).astype(np.float32))
    p[:] = 1  # the caller's own


# ----- Captions -----


def test_describe_a_neuron():
    y = layer((1, 5, 4, 3))
    assert neuron.describe(project("index:4,3,2", y)[0], y[0]) == (4, (3, 2), float(y[0, 4, 3, 2]))
    assert neuron.describe(project("max", y[..., 0, 0])[0], y[0, :, 0, 0])[1] is None


def test_describe_a_class():
    y = np.abs(layer((1, 5, 4, 3)))
    assert neuron.describe(project("class:2", y)[0], y[0]) == (2, None, float(y[0, 2].max()))


def test_describe_what_is_neither():
    y = layer((1, 5, 4, 3))
    assert neuron.describe(project("mixture", y)[0], y[0]) == (None, None, None)
    assert neuron.describe(np.zeros_like(y[0]), y[0]) == (None, None, None)
    assert neuron.describe(y[0] * (np.arange(5) == 2)[:, None, None], y[0]) == (None, None, None)


# ----- Refusals -----


@pytest.mark.parametrize(
    "spec", ["max", "channel:3", "centre", "class:0", "index:1,2,3", "random", "mixture", "a/p.npy"]
)
def test_text_of_a_neuron_is_its_spec(spec):
    assert str(neuron.parse(spec)) == spec


@pytest.mark.parametrize("spec", ["", "maximum", "Max", "center", ":1", "285", "p.npz"])
def test_unknown_specs_list_what_works(spec):
    known = "max, channel:c, centre, class:c, index:c,h,w, random, mixture, file.npy"
    with pytest.raises(
        RevgraphError, match=re.escape(f"unknown neuron '{spec}': no such kind (known: {known})")
    ):
        neuron.parse(spec)


BAD = [
    "channel",
    "channel:",
    "channel:a",
    "channel:-1",
    "channel:1.5",
    "channel:1,2",
    "channel:٣",
    "channel:²",
    "class:1e3",
]
BAD += ["max:1", "centre:", "random:3", "index", "index:", "index:1,,2", "index:1,2,3,4,5"]


@pytest.mark.parametrize("spec", [*BAD, "class:" + "9" * 5000])
def test_bad_numbers(spec):
    with pytest.raises(RevgraphError, match=r"bad neuron '.*': it is written .* \(whole numbers from 0\)"):
        neuron.parse(spec)


def test_spaces_are_forgiven():
    assert neuron.parse("index:1, 2, 3").numbers == (1, 2, 3)


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("channel:5", "cannot project on 'channel:5': y has no channel 5 (0 to 4)"),
        ("class:999", "cannot project on 'class:999': y has no channel 999 (0 to 4)"),
        ("index:5,0,0", "y has no channel 5 (0 to 4)"),
        ("index:0,4,0", "y has no position 4 on spatial axis 1 (0 to 3)"),
        ("index:0,0,3", "y has no position 3 on spatial axis 2 (0 to 2)"),
        ("index:1", "1 given, and a neuron of 5x4x3 has 3 coordinates (the channel first"),
    ],
)
def test_out_of_range_gives_the_range(spec, why):
    with pytest.raises(RevgraphError, match=re.escape(why)):
        project(spec, layer((2, 5, 4, 3)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("spec", ["max", "mixture", "none.npy"])
def test_a_y_that_is_not_finite(spec, value):
    y = layer((2, 5, 4, 3))
    y[1, 2, 3, 1] = value
    with pytest.raises(RevgraphError, match=f"cannot project on '{spec}': y holds 1 "):
        project(spec, y)


@pytest.mark.parametrize("shape", [(), (5,), (0, 5), (1, 5, 0)])
def test_a_y_without_batch_or_neurons(shape):
    with pytest.raises(
        RevgraphError, match=r"cannot project on 'max': y is .* \(a layer of shape \(N, C, ...\)\)"
    ):
        project("max", np.zeros(shape, np.float32))


def test_random_needs_another_neuron():
    with pytest.raises(RevgraphError, match="y has a single neuron"):
        project("random", np.ones((1, 1), np.float32))


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (np.zeros((5, 4)), "it holds 5x4 values of type float64"),
        (np.zeros((3, 5, 4, 3)), "it holds 3x5x4x3 values"),
        (np.float64(3), "it holds a scalar values"),
        (np.zeros((5, 4, 3), complex), "of type complex128"),
        (np.full((5, 4, 3), "a"), "of type <U1"),
        (np.full((5, 4, 3), np.nan), "as float32 it holds 120 "),
        (np.full((5, 4, 3), 1e300), "as float32 it holds 120 "),
    ],
)
def test_files_that_do_not_fit(tmp_path, values, why):
    np.save(tmp_path / "p.npy", values)
    with pytest.raises(
        RevgraphError, match=re.escape(why) + r".* \(a .npy file of 2x5x4x3 or 5x4x3 numbers\)"
    ):
        project(str(tmp_path / "p.npy"), layer((2, 5, 4, 3)))


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("the pickle ran",)


def test_files_that_are_not_arrays(tmp_path):
    path = tmp_path / "p.npy"
    np.save(path, np.array([Bomb()], dtype=object), allow_pickle=True)
    pickled = path.read_bytes()
    header = b"\x93NUMPY\x01\x00"
    huge = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }".ljust(117) + "\n"
    texts = [
        b"",
        b"hello",
        b"PK\x03\x04",
        pickled,
        header + b"\x05\x00((((\n",
        header,
        header + b"\x76\x00" + huge.encode(),
    ]
    for text in texts:
        path.write_bytes(text)
        with pytest.raises(RevgraphError, match=r"cannot project on '.*p\.npy': not a .npy file of numbers"):
            project(str(path), layer((2, 5, 4, 3)))


def test_missing_file_and_folder(tmp_path):
    (tmp_path / "folder.npy").mkdir()
    for name in ("none.npy", "folder.npy"):
        with pytest.raises(RevgraphError, match=rf"cannot project on '.*{name}': .+ \(a .npy file of"):
            project(str(tmp_path / name), layer((2, 5, 4, 3)))
