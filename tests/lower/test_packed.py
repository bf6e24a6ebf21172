"""A packed bottleneck is the plain one in fewer bits: unpacked by NumPy, and x_hat bit for bit."""

import itertools

import numpy as np
import onnx
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from layers import mixed, weights
from networks import cnn, he, model, node, picture
from onnx import helper, numpy_helper

import revgraph
from revgraph.cli import main
from revgraph.inspect import inspect
from revgraph.lower import bits, packed
from revgraph.variants import NAMED
from revgraph.verify import verify

NETS = {"cnn": (cnn, (3, 8, 8)), "mixed": (mixed, (4, 9, 9))}
RANDOM = settings(max_examples=150, derandomize=True, deadline=None, database=None)


def sessions(source, variant="desalinet", check=True, **options):
    """Of the plain compilation, and of the packed one."""
    pairs = [
        revgraph.compile(source, variant=variant, bottleneck=kind, **options) for kind in ("plain", "packed")
    ]
    return [revgraph.Session(pair, threads=1, check=check) for pair in pairs]


def both(source, x, variant="desalinet", rows=None, error=0.0, **options):
    """The taps of both, once their x_hat has been found to be the same, or equal to `error`."""
    plain, small = sessions(source, variant, **options)
    traces = plain.forward(x), small.forward(x)
    y = traces[0].y
    p = np.random.default_rng(1).integers(-9, 10, (rows or len(y), *y.shape[1:])).astype(y.dtype)
    p *= np.abs(y) < np.finfo(y.dtype).max  # a window without a maximum says so, and has no switch
    np.testing.assert_array_equal(traces[1].y, y)
    x_hat = plain.reverse(traces[0], p)
    np.testing.assert_allclose(
        small.reverse(traces[1], p), x_hat, rtol=0, atol=error * np.abs(x_hat).max(initial=0)
    )
    return [{name: tap.numpy() for name, tap in trace.taps.items()} for trace in traces]


def unpacked(tap, width, shape):
    """Numbers of `width` bits each, read image by image: (N, *shape)."""
    count = int(np.prod(shape))
    stream = np.unpackbits(tap, axis=1, bitorder="little", count=count * width)
    return (stream.reshape(len(tap), count, width) << np.arange(width)).sum(axis=2).reshape(-1, *shape)


def width_of(kernel):
    return max(int(np.ceil(np.log2(np.prod(kernel)))), 1)


# ----- Masks -----


@pytest.mark.parametrize("variant", revgraph.VARIANTS)
@pytest.mark.parametrize("net", NETS)
def test_x_hat_is_the_same_bit_for_bit(net, variant):
    source, shape = NETS[net]
    plain, small = both(source(), picture(3, *shape), variant)
    assert plain.keys() == small.keys()
    for name, r in plain.items():
        if r.dtype == bool:
            expected = np.packbits(r.reshape(3, -1), axis=1, bitorder="little")
            np.testing.assert_array_equal(small[name], expected)
        elif r.dtype == np.int64:
            assert small[name].dtype == np.uint8
        else:  # what LRN is BP-reversed by
            np.testing.assert_array_equal(small[name], r)


@pytest.mark.parametrize("units", [1, 7, 8, 9, 16, 23])
@pytest.mark.parametrize("declared", [(1, "units"), (1, "L"), ("C", "units")])
def test_units_that_fill_no_byte(units, declared):
    shape = ["N", *(units if n == "units" else n for n in declared)]
    source = model([node("Relu", "x", "y")], shape)
    x = picture(2, 1, units)
    _, small = both(source, x, "salinet")
    assert small["y/mask"].shape == (2, -(-units // 8))
    np.testing.assert_array_equal(unpacked(small["y/mask"], 1, (1, units)), x > 0)


def test_masks_whose_shape_nothing_tells_stay_as_they_are():
    """Of a maximum over all of a plane whose size is free, the reversed graph sees one element."""
    nodes = [node("Relu", "x", "a"), node("GlobalMaxPool", "a", "y")]
    plain, small = both(model(nodes, ["N", 2, "H", "W"]), picture(2, 2, 5, 3))
    found = {name: (r.dtype, r.shape) for name, r in small.items()}
    assert found == {"y/mask": (bool, (2, 2, 5, 3)), "a/mask": (np.uint8, (2, 4))}
    np.testing.assert_array_equal(small["y/mask"], plain["y/mask"])
    _, fixed = both(model(nodes, ["N", 2, 5, 3]), picture(2, 2, 5, 3))
    assert {r.dtype for r in fixed.values()} == {np.dtype(np.uint8)}


@pytest.mark.parametrize("size", [(5, 3), ("H", "W")])
def test_conditions_that_broadcast(size):
    """A mask of fewer units than y_hat."""
    nodes = [node("Greater", "z zero", "c"), node("Neg", "x", "a"), node("Where", "c x a", "y")]
    source = model(nodes, ["N", 9, *size], {"zero": np.float32(0)})
    source.graph.input.append(helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, ["N", 9, 1, 1]))
    source.graph.output[0].CopyFrom(
        helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 9, *size])
    )
    x, z, p = picture(3, 9, 5, 3), picture(3, 9, 1, 1, seed=1), picture(3, 9, 5, 3, seed=2)
    plain, small = sessions(source, "salinet", input="x")
    traces = plain.forward(x, z=z), small.forward(x, z=z)
    np.testing.assert_array_equal(small.reverse(traces[1], p), plain.reverse(traces[0], p))
    np.testing.assert_array_equal(small.reverse(traces[1], p), np.where(z > 0, p, -p))
    assert [tap.numpy().shape for tap in traces[1].taps.values()] == [(3, 2)]


# ----- Switches -----


def first_maximum(plane, u, kernel, strides, dilations, begin):
    """Of one window: the number of its first maximum, row-major, and where in the plane that is."""
    best = None
    for number, tap in enumerate(np.ndindex(*kernel)):
        v = tuple(i * s + t * d - b for i, s, t, d, b in zip(u, strides, tap, dilations, begin, strict=True))
        inside = all(0 <= i < n for i, n in zip(v, plane.shape, strict=True))
        if inside and (best is None or plane[v] > plane[best[1]]):
            best = number, v
    return best


@st.composite
def pools(draw):
    """Attributes of a MaxPool, its spatial size, and its padding before the first element."""
    axes = draw(st.integers(1, 3))
    most = {1: 9, 2: 5, 3: 3}[axes]
    many = lambda low, high: [draw(st.integers(low, high)) for _ in range(axes)]  # noqa: E731
    kernel, strides = many(1, most), many(1, 4)
    size = [draw(st.integers(k, k + 5)) for k in kernel]
    attributes = {"kernel_shape": kernel, "strides": strides}
    if mode := draw(st.sampled_from(["", "", "SAME_UPPER", "SAME_LOWER"])):
        strides[:] = [min(s, k) for s, k in zip(strides, kernel, strict=True)]
        totals = [max((-(-n // s) - 1) * s + k - n, 0) for n, s, k in zip(size, strides, kernel, strict=True)]
        return attributes | {"auto_pad": mode}, size, [(t + (mode == "SAME_LOWER")) // 2 for t in totals]
    dilations = many(1, 3)
    begin, end = ([draw(st.integers(0, k - 1)) for k in kernel] for _ in range(2))
    extent = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    size = [draw(st.integers(max(e - b - a, 1), e + 5)) for e, b, a in zip(extent, begin, end, strict=True)]
    attributes |= {"dilations": dilations, "pads": [*begin, *end], "ceil_mode": draw(st.integers(0, 1))}
    return attributes, size, begin


@RANDOM
@given(pools(), st.booleans(), st.booleans(), st.integers(0, 2**32 - 1))
def test_random_windows(drawn, ties, free, seed):
    attributes, size, begin = drawn
    rng, axes = np.random.default_rng(seed), len(size)
    x = rng.integers(-1, 2, (2, 3, *size)) if ties else rng.permutation(6 * np.prod(size))
    x = x.reshape(2, 3, *size).astype(np.float32)
    declared = ["L", "M", "K"][:axes] if free else size
    source = model([node("MaxPool", "x", "y", **attributes)], ["N", 3, *declared])
    try:
        plain, small = both(source, x, "salinet")
    except revgraph.RevgraphError as refusal:
        if "ceil_mode" in refusal.why:  # its last window would begin beyond the input
            reject()
        raise
    positions, kernel = plain["y/switches"], attributes["kernel_shape"]
    width = width_of(kernel)
    assert small["y/switches"].shape == (2, -(-positions[0].size * width // 8))
    numbers = unpacked(small["y/switches"], width, positions.shape[1:])
    ones = [1] * axes
    steps = attributes["strides"], attributes.get("dilations", ones), begin
    for n, c, *u in np.ndindex(*positions.shape):
        found = first_maximum(x[n, c], u, kernel, *steps)
        if found is not None:
            assert (numbers[n, c, *u], positions[n, c, *u]) == (
                found[0],
                np.ravel_multi_index(found[1], size),
            )


@pytest.mark.parametrize(
    ("kernel", "width"),
    [([1, 1], 1), ([2, 1], 1), ([2, 2], 2), ([3, 2], 3), ([3, 3], 4), ([4, 4], 4), ([5, 5], 5)]
    + [
        ([3, 3, 3], 5),
        ([16, 16], 8),
        ([1, 257], 9),
        ([6, 6], 6),
        ([9, 9], 7),
        ([24, 24], 10),
        ([45, 45], 11),
        ([32, 64], 11),
    ],
)
@pytest.mark.parametrize("free", [False, True])
def test_a_window_takes_the_fewest_whole_bits(kernel, width, free):
    size = [k + 7 for k in kernel]
    source = model(
        [node("MaxPool", "x", "y", kernel_shape=kernel, strides=[3] * len(kernel))],
        ["N", 2, *(("A", "B", "C")[: len(kernel)] if free else size)],
    )
    plain, small = both(source, picture(2, 2, *size))
    windows = plain["y/switches"][0].size
    assert small["y/switches"].shape == (2, -(-windows * width // 8))


def test_a_window_of_more_than_2048_elements_stays_as_it_is():
    source = model([node("MaxPool", "x", "y", kernel_shape=[1, 2049])], ["N", 1, 2, 2060])
    plain, small = both(source, picture(2, 1, 2, 2060))
    np.testing.assert_array_equal(small["y/switches"], plain["y/switches"])
    assert small["y/switches"].dtype == np.int64


@pytest.mark.parametrize("pads", [[0] * 4, [1] * 4])
@pytest.mark.parametrize("nothing", [-np.inf, np.nan])
@pytest.mark.parametrize("strides", [[2, 2], [1, 1]])
def test_windows_without_a_maximum_leave_the_others_alone(pads, nothing, strides):
    x = picture(1, 2, 6, 6)
    x[0, 1, 2:] = nothing
    x[0, 0, 2:4, 2:4] = nothing
    attributes = {"kernel_shape": [2, 2], "strides": strides, "pads": pads}
    source = model([node("MaxPool", "x", "y", **attributes)], ["N", 2, 6, 6])
    plain, small = both(source, x, "identity", check=False)
    assert small["y/switches"].dtype == np.uint8
    assert plain["y/switches"].dtype == np.int64


# ----- Batches, rows, types, files -----


@pytest.mark.parametrize("net", NETS)
def test_the_taps_of_a_batch_are_those_of_its_images(net):
    source, shape = NETS[net]
    session = sessions(source(), "desalinet")[1]
    x = picture(3, *shape)
    together = session.forward(x).taps
    each = [session.forward(x[i : i + 1]).taps for i in range(3)]
    for name, tap in together.items():
        assert tap.numpy().dtype == np.uint8
        np.testing.assert_array_equal(tap.numpy(), np.concatenate([taps[name].numpy() for taps in each]))


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("batch", ["N", 1, 2])
def test_projections_share_the_taps_of_one_image(net, batch):
    source, shape = NETS[net]
    n = batch if isinstance(batch, int) else 1
    both(source(batch), picture(n, *shape), rows=5 if n == 1 else None)


def resizable():
    """Both kinds of unpooling, and ReLUs before and after; five channels of any size."""
    nodes = [
        node("Conv", "x w1", "conv1", pads=[1] * 4),
        node("Relu", "conv1", "relu1"),
        node("MaxPool", "relu1", "pool1", kernel_shape=[3, 2], strides=[2, 2], auto_pad="SAME_UPPER"),
        node("Relu", "pool1", "relu2"),
        node("MaxPool", "relu2", "pool2", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
        node("Clip", "pool2 low high", "y"),
    ]
    bounds = {"low": np.float32(0), "high": np.float32(6)}
    return model(nodes, ["N", 3, "H", "W"], {"w1": weights(5, 3, 3, 3), **bounds})


@pytest.mark.parametrize("variant", revgraph.VARIANTS)
def test_one_compilation_serves_all_sizes(variant):
    plain, small = sessions(resizable(), variant)
    for size in (8, 9), (13, 6), (4, 7):
        x = picture(2, 3, *size)
        traces = plain.forward(x), small.forward(x)
        p = picture(*traces[0].y.shape, seed=1)
        np.testing.assert_array_equal(small.reverse(traces[1], p), plain.reverse(traces[0], p))
        for name, tap in traces[1].taps.items():
            r = traces[0].taps[name].numpy()
            width = {"mask": 1, "switches": {"pool1": 3, "pool2": 2}.get(name.partition("/")[0])}
            if bit := width.get(name.rpartition("/")[2]):
                assert tap.numpy().shape == (2, -(-r[0].size * bit // 8))


@pytest.mark.parametrize("variant", ["salinet", "desalinet-centre"])
@pytest.mark.parametrize("net", [cnn, resizable])
def test_float16(net, variant):
    source = net()
    for tensor in source.graph.initializer:
        tensor.CopyFrom(
            numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name)
        )
    for value in (*source.graph.input, *source.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    # onnxruntime's CPU rounds to float16 at other places: a dozen layers, each to 2^-11.
    _, small = both(source, picture(2, 3, 8, 8).astype(np.float16), variant, error=5e-3)
    assert {r.dtype.name for name, r in small.items() if "size" not in name} == {"uint8"}


@pytest.mark.parametrize("fused", [False, True])
def test_saved_and_loaded(fused, tmp_path):
    pair = revgraph.compile(mixed(), variant="desalinet", bottleneck="packed")
    pair.save(tmp_path, fused=fused)
    loaded = revgraph.load(tmp_path)
    assert loaded.metadata["bottleneck"] == "packed"
    x, p = picture(2, 4, 9, 9), picture(2, 5)
    found = [revgraph.Session(each, threads=1) for each in (pair, loaded)]
    expected, x_hat = (session.reverse(session.forward(x), p) for session in found)
    np.testing.assert_array_equal(x_hat, expected)


@pytest.mark.parametrize("variant", revgraph.VARIANTS)
def test_the_graphs_are_standard_onnx_without_operators_on_bits(variant):
    for source in mixed(), resizable():
        pair = revgraph.compile(source, variant=variant, bottleneck="packed")
        for part in pair.forward, pair.reversed, pair.fused():
            onnx.checker.check_model(part, full_check=True)
            assert part.opset_import[0].version == 17
            assert not [each.op_type for each in part.graph.node if each.op_type.startswith("Bit")]
            assert {each.domain for each in part.graph.node} <= {"", "ai.onnx"}


@pytest.mark.parametrize("variant", ["salinet", "desalinet", "deconvnet"])
@pytest.mark.parametrize("source", [cnn(), mixed(), mixed(2), resizable()])
def test_the_proof_passes(source, variant):
    checks = list(verify(revgraph.compile(source, variant=variant, bottleneck="packed"), source))
    assert [check.what for check in checks if check.passed is False] == []


# ----- Seeded faults -----


def disagree():
    """Whether x_hat differs from the plain one, on windows of either way to unpool, padded."""
    for kernel, strides in itertools.product(([2, 2], [3, 3], [3, 2]), ([3, 3], [2, 2])):
        pool = node("MaxPool", "r", "y", kernel_shape=kernel, strides=strides, pads=[1] * 4)
        source = model([node("Relu", "x", "r"), pool], ["N", 3, 7, 7])
        try:
            both(source, picture(2, 3, 7, 7), "salinet")
        except (AssertionError, revgraph.RevgraphError):
            continue
        return False
    return True


def test_without_a_fault_they_agree():
    assert not disagree()


def reversed_bits(width, digits=bits.digits):
    return digits(width)[:, ::-1]


def shifted_corners(by):
    corners = packed._corners

    def shifted(builder, window, size, outputs, weights):
        """Off by one in the last window of the last axis, where it overhangs the plane."""
        found = np.array(corners(builder, window, size, outputs, weights))
        found[..., -1] += by
        return found

    return shifted


@pytest.mark.parametrize(
    ("module", "name", "fault"),
    [
        pytest.param(bits, "digits", reversed_bits, id="bits in the other order"),
        pytest.param(packed, "_steps", lambda size: [1] * len(size), id="no rows"),
    ],
)
def test_another_order_is_noticed(monkeypatch, module, name, fault):
    monkeypatch.setattr(module, name, fault)
    assert disagree()


@pytest.mark.parametrize("side", ["_inner", "_positions"])
@pytest.mark.parametrize("by", [-1, 1])
def test_a_corner_off_by_one_at_a_border_is_noticed(monkeypatch, side, by):
    right, wrong, function = packed._corners, shifted_corners(by), getattr(packed, side)

    def faulty(*arguments):
        with monkeypatch.context() as patch:
            patch.setattr(packed, "_corners", wrong)
            return function(*arguments)

    monkeypatch.setattr(packed, side, faulty)
    assert packed._corners is right
    assert disagree()


# ----- What the user sees -----


def test_it_is_off_unless_asked_for():
    assert revgraph.compile(cnn(), variant="salinet").metadata["bottleneck"] == "plain"
    with pytest.raises(revgraph.RevgraphError, match=r"unknown bottleneck: 'tiny' \(known: plain, packed\)"):
        revgraph.compile(cnn(), variant="salinet", bottleneck="tiny")


def test_the_command(tmp_path, capsys):
    onnx.save(cnn(), tmp_path / "net.onnx")
    line = f"compile {tmp_path}/net.onnx --variant desalinet --bottleneck packed -o {tmp_path}/out"
    assert main(line.split()) == 0
    assert revgraph.load(tmp_path / "out").metadata["bottleneck"] == "packed"
    capsys.readouterr()
    assert main(["inspect", f"{tmp_path}/net.onnx"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "packed: deconvnet 40, salinet 126, desalinet 126"


@pytest.mark.parametrize("variant", NAMED)
@pytest.mark.parametrize("net", NETS)
def test_inspect_counts_what_crosses(variant, net):
    source, shape = NETS[net]
    session = sessions(source(), variant)[1]
    crossing = sum(tap.numpy().nbytes for tap in session.forward(picture(2, *shape)).taps.values())
    column = NAMED.index(variant)
    assert 2 * sum(layer.packed[column] for layer in inspect(source())[2]) == crossing


@pytest.mark.parametrize(
    ("shape", "layer", "crosses"),
    [
        (("N", 1, 33, 65), {"kernel_shape": [32, 64]}, -(-4 * 11 // 8)),
        (("N", 1, 2, 2060), {"kernel_shape": [1, 2049]}, 24 * 8),
        (("N", 1, "H", "W"), {"kernel_shape": [2, 2]}, None),
        (("N", "C", 3, 4), None, None),
    ],
)
def test_inspect_counts_large_windows_as_they_are_and_free_sizes_not_at_all(shape, layer, crosses):
    kind = node("MaxPool", "x", "y", **layer) if layer else node("Relu", "x", "y")
    (only,) = inspect(model([kind], shape))[2]
    assert only.packed[NAMED.index("salinet")] == crosses


def vgg16():
    """VGG-16 up to its last ReLU before the classes, of random weights."""
    rng, nodes, tensors, last, channels = np.random.default_rng(0), [], {}, "x", 3
    for block, (convs, wide) in enumerate([(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)], 1):
        for i in range(1, convs + 1):
            name = f"{block}_{i}"
            tensors[f"w{name}"] = he(rng, wide, channels, 3, 3)
            nodes.append(node("Conv", f"{last} w{name}", f"conv{name}", pads=[1] * 4))
            nodes.append(node("Relu", f"conv{name}", f"relu{name}"))
            last, channels = f"relu{name}", wide
        nodes.append(node("MaxPool", last, f"pool{block}", kernel_shape=[2, 2], strides=[2, 2]))
        last = f"pool{block}"
    nodes.append(node("Flatten", last, "flat"))
    for i, (last, features) in enumerate((("flat", 25088), ("relu6", 4096)), 6):
        tensors[f"w{i}"] = np.full((features, 4096), 1e-3, np.float32)
        nodes += [node("Gemm", f"{last} w{i}", f"fc{i}"), node("Relu", f"fc{i}", f"relu{i}")]
    return model(nodes, ["N", 3, 224, 224], tensors)


@pytest.mark.heavy
def test_vgg_16_takes_2_1_mb_per_image():
    plain, small = both(vgg16(), picture(1, 3, 224, 224))
    assert sum(r.nbytes for r in plain.values()) == 25_798_656
    assert sum(r.nbytes for r in small.values()) == 2_077_056
