"""Running a compilation: what fits, what is refused, and where nothing survives."""

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
from layers import mixed
from networks import cnn, he, model, node, overflowing, picture, run
from onnx import helper, numpy_helper

import revgraph
from revgraph import capture, pair, reference
from revgraph import session as session_module
from revgraph.errors import RevgraphError
from revgraph.finite import NotFiniteError
from revgraph.session import Session, Trace


@pytest.fixture(scope="module")
def session():
    return Session(revgraph.compile(cnn(), variant="desalinet"))


def refused(match, function, *args, **kwargs):
    with pytest.raises(RevgraphError, match=match) as raised:
        function(*args, **kwargs)
    assert "\n" not in str(raised.value)
    return raised.value


# ----- Forward -----


def test_no_run_reads_the_metadata_again(monkeypatch):
    session = Session(revgraph.compile(cnn(), variant="desalinet"))
    first = session.forward(picture(1, 3, 8, 8))
    monkeypatch.delattr(pair, "json")  # whoever reads it now fails
    monkeypatch.delattr(pair, "metadata_of")
    trace = session.forward(picture(1, 3, 8, 8))
    assert trace.taps.keys() == first.taps.keys()
    assert session.reverse(trace, np.ones_like(trace.y)).shape == (1, 3, 8, 8)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_trace_holds_y_the_outputs_and_the_bottleneck(session, n):
    x = picture(n, 3, 8, 8)
    trace = session.forward(x)
    assert isinstance(trace, Trace)
    assert list(trace.outputs) == ["prob", "logits"]
    assert trace.y is trace.outputs["logits"]
    assert (trace.y.shape, trace.y.dtype) == ((n, 5), np.float32)
    taps = {name: (tuple(value.shape()), value.numpy().dtype) for name, value in trace.taps.items()}
    assert taps == {
        "relu1/mask": ((n, 10, 8, 8), bool),
        "relu2/mask": ((n, 12, 2, 2), bool),
        "pool1/switches": ((n, 10, 4, 4), np.int64),
    }
    np.testing.assert_allclose(trace.outputs["prob"], run(cnn(), x=x)["prob"], rtol=1e-5)


@pytest.mark.parametrize("make", [np.asfortranarray, lambda x: np.repeat(x, 2, axis=-1)[..., ::2]])
def test_the_layout_in_memory_does_not_matter(session, make):
    x = picture(2, 3, 8, 8)
    trace, other = session.forward(x), session.forward(make(x))
    np.testing.assert_array_equal(other.y, trace.y)
    p = picture(2, 5)
    np.testing.assert_array_equal(session.reverse(other, make(p)), session.reverse(trace, p))


@pytest.mark.parametrize(
    ("x", "match"),
    [
        (picture(1, 3, 8, 9), r"input 'x' does not fit: it is float32 \(1, 3, 8, 9\): the model wants"),
        (picture(1, 4, 8, 8), r"\(1, 4, 8, 8\)"),
        (picture(3, 8, 8), r"\(3, 8, 8\)"),
        (np.float32(1), r"\(\)"),
        (picture(1, 3, 8, 8).astype(np.float64), "float64"),
        (picture(1, 3, 8, 8).astype(np.float16), "float16"),
        (np.zeros((1, 3, 8, 8), np.uint8), "uint8"),
        (np.zeros((1, 3, 8, 8), np.complex64), "complex64"),
        (np.full((1, 3, 8, 8), "a"), "<U1"),
    ],
)
def test_an_input_that_does_not_fit_is_refused(session, x, match):
    refused(match, session.forward, np.asarray(x))


def test_missing_and_unknown_inputs_are_refused(session):
    refused(r"given were 'x', 'z' \(the model has 'x'\)", session.forward, picture(1, 3, 8, 8), z=picture(1))


def test_a_static_batch_is_kept():
    session = Session(revgraph.compile(cnn(batch=2), variant="desalinet"))
    refused(r"\(1, 3, 8, 8\)", session.forward, picture(1, 3, 8, 8))
    trace = session.forward(picture(2, 3, 8, 8))
    assert session.reverse(trace, picture(2, 5)).shape == (2, 3, 8, 8)
    refused("3 rows", session.reverse, trace, picture(3, 5))


def test_inputs_may_be_called_anything():
    nodes = [node("Add", "self x", "y"), node("Relu", "y", "z")]
    net = model(nodes, [1, 3, 4, 4])
    net.graph.input.append(helper.make_tensor_value_info("self", onnx.TensorProto.FLOAT, [1, 3, 4, 4]))
    net.graph.output[0].CopyFrom(helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, [1, 3, 4, 4]))
    session = Session(revgraph.compile(net, variant="salinet", input="self"))
    a, b = picture(1, 3, 4, 4), picture(1, 3, 4, 4, seed=1)
    trace = session.forward(a, x=b)
    np.testing.assert_allclose(trace.y, np.maximum(a + b, 0))


# ----- Reverse -----


@pytest.mark.parametrize("variant", revgraph.VARIANTS)
@pytest.mark.parametrize("batch", ["N", 1])
def test_many_projections_of_one_image_are_as_many_runs(variant, batch):
    session = Session(revgraph.compile(cnn(batch), variant=variant, at="relu2"))
    trace, p = session.forward(picture(1, 3, 8, 8)), picture(4, 12, 2, 2)
    together = session.reverse(trace, p)
    assert (together.shape, together.dtype) == ((4, 3, 8, 8), np.float32)
    for row in range(4):
        single = session.reverse(trace, p[row : row + 1])
        np.testing.assert_allclose(together[row], single[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("variant", revgraph.VARIANTS)
def test_a_batch_is_its_images(variant):
    session = Session(revgraph.compile(cnn(), variant=variant, at="conv2"))
    x, p = picture(3, 3, 8, 8), picture(3, 12, 2, 2)
    trace = session.forward(x)
    together = session.reverse(trace, p)
    for row in range(3):
        one = session.forward(x[row : row + 1])
        for name, tap in one.taps.items():
            np.testing.assert_array_equal(tap.numpy()[0], trace.taps[name].numpy()[row])
        np.testing.assert_allclose(
            together[row], session.reverse(one, p[row : row + 1])[0], rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize(("n", "rows"), [(2, 1), (2, 3), (3, 2), (4, 8), (2, 0)])
def test_any_other_number_of_projections_is_refused(session, n, rows):
    trace = session.forward(picture(n, 3, 8, 8))
    error = refused(
        f"it has {rows} rows: the trace is of {n} images", session.reverse, trace, picture(rows, 5)
    )
    assert error.remedy == f"give {n} rows, or trace one image"


@pytest.mark.parametrize(
    "p",
    [
        picture(1, 6),
        picture(5),
        picture(1, 5, 1),
        np.float32(1),
        picture(1, 5).astype(np.float64),
        np.eye(5, dtype=int),
    ],
)
def test_a_projection_of_another_shape_or_type_is_refused(session, p):
    trace = session.forward(picture(1, 3, 8, 8))
    refused(r"p does not fit: .*y is float32 \(1, 5\)", session.reverse, trace, np.asarray(p))


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floating_types_go_through(dtype):
    rng = np.random.default_rng(0)
    nodes = [node("Relu", "x", "a"), node("Flatten", "a", "b"), node("Gemm", "b w", "y")]
    net = model(nodes, ["N", 3, 2, 2], {"w": he(rng, 12, 4).astype(dtype)})
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    for value in (*net.graph.input, *net.graph.output):
        value.type.tensor_type.elem_type = element
    net.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", element, ["N", 4]))
    session = Session(revgraph.compile(net, variant="salinet"))
    x = picture(2, 3, 2, 2).astype(dtype)
    trace = session.forward(x)
    p = picture(2, 4).astype(dtype)
    found = session.reverse(trace, p)
    assert (trace.y.dtype, found.dtype) == (dtype, dtype)
    weight = numpy_helper.to_array(net.graph.initializer[0]).astype(np.float64)
    expected = (p.astype(np.float64) @ weight.T).reshape(x.shape) * (x > 0)
    np.testing.assert_allclose(found, expected, rtol=1e-2 if dtype == np.float16 else 1e-12, atol=1e-2)


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_threads_change_nothing(session, threads):
    other = Session(session.pair, threads=threads)
    x, p = picture(2, 3, 8, 8), picture(2, 5)
    expected = session.reverse(session.forward(x), p)
    np.testing.assert_allclose(other.reverse(other.forward(x), p), expected, rtol=1e-5, atol=1e-7)


def test_a_trace_can_be_reversed_again(session):
    trace, p = session.forward(picture(1, 3, 8, 8)), picture(1, 5)
    first = session.reverse(trace, p)
    session.forward(picture(1, 3, 8, 8, seed=9))
    np.testing.assert_array_equal(session.reverse(trace, p), first)


# ----- Where x_hat vanishes -----


def chain(**signs):
    """x -> ra -> cb -> rb -> cc -> y with 1 x 1 convolutions of weight 1, or what `signs` says."""
    nodes = [
        node("Relu", "x", "ra"),
        node("Conv", "ra b", "cb"),
        node("Relu", "cb", "rb"),
        node("Conv", "rb c", "cc"),
        node("Relu", "cc", "y"),
    ]
    ones = {name: np.full((1, 1, 1, 1), signs.get(name, 1), np.float32) for name in ("b", "c")}
    return model(nodes, ["N", 1, 2, 2], ones)


ONES = np.ones((1, 1, 2, 2), np.float32)


@pytest.mark.parametrize("variant", ["identity", "deconvnet", "salinet", "desalinet"])
def test_nothing_vanishes_where_something_is_left(variant):
    session = Session(revgraph.compile(chain(), variant=variant))
    assert session.vanishes_after(session.forward(ONES), ONES) is None


@pytest.mark.parametrize(
    ("variant", "signs", "p", "last"),
    [
        ("deconvnet", {}, -ONES, "y"),  # rectified away at once
        ("deconvnet", {"c": -1}, ONES, "cc"),  # turned negative by cc, rectified in rb
        ("deconvnet", {"b": -1}, ONES, "cb"),
        ("salinet", {"b": -1}, ONES, "y"),  # all masks are shut
        ("desalinet", {"c": -1}, ONES, "y"),  # the forward pass is dead after cc, so y's mask is shut
        ("desalinet", {}, 0 * ONES, "y"),  # there was nothing to begin with
        ("salinet", {}, 0 * ONES, "y"),
    ],
)
def test_it_names_the_layer_below_which_nothing_is_left(variant, signs, p, last):
    session = Session(revgraph.compile(chain(**signs), variant=variant))
    trace = session.forward(ONES)
    assert not session.reverse(trace, p).any()
    assert session.vanishes_after(trace, p) == last


def test_open_masks_below_do_not_count_as_survival():
    """ra and rb are open, and cc's output is all negative where p points: only there is nothing left."""
    nodes = [*chain().graph.node[:4], node("Conv", "cc d", "cd"), node("Relu", "cd", "y")]
    weights = {"b": ONES[..., :1, :1], "c": ONES[..., :1, :1], "d": -ONES[..., :1, :1]}
    session = Session(revgraph.compile(model(nodes, ["N", 1, 2, 2], weights), variant="desalinet"))
    assert session.vanishes_after(session.forward(ONES), ONES) == "y"


def test_values_and_sizes_do_not_count_as_survival():
    nodes = [node("LRN", "x", "n", size=1), node("Relu", "n", "r"), node("Conv", "r b", "y")]
    net = model(nodes, ["N", 1, 2, 2], {"b": ONES[..., :1, :1]})
    session = Session(revgraph.compile(net, variant="salinet"))
    trace = session.forward(-ONES)
    assert session.vanishes_after(trace, ONES) == "y"


# ----- What onnxruntime says -----


def test_without_onnxruntime_the_error_says_what_to_install(monkeypatch, session):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    error = refused("onnxruntime is not installed", Session, session.pair)
    assert str(error).endswith('(pip install "revgraph[cpu]")')


def test_compiling_needs_no_onnxruntime(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert revgraph.compile(cnn(), variant="desalinet").taps


def test_what_onnxruntime_refuses_is_one_line_and_nothing_is_logged(capfd):
    nodes = [node("Relu", "x", "a"), node("Add", "a c", "y")]
    net = model(nodes, ["N", 3, "H", "W"], {"c": np.ones((1, 3, 8, 8), np.float32)})
    session = Session(revgraph.compile(net, variant="desalinet"))
    error = refused("onnxruntime cannot run this network", session.forward, picture(1, 3, 5, 7))
    assert error.remedy == "check that the model itself runs there"
    assert capfd.readouterr() == ("", "")


def test_several_threads_share_a_session():
    """Each gets what it would alone, whichever the others run, and whichever opens the reversed graph."""
    pair = revgraph.compile(mixed(), variant="desalinet", target="cpu")
    session = Session(pair, threads=1)
    xs = [picture(2, 4, 9, 9, seed=i) for i in range(8)]
    ps = [picture(2, 5, seed=i) for i in range(8)]

    def explain(i):
        return session.reverse(session.forward(xs[i]), ps[i])

    alone = [explain(i) for i in range(8)]
    session = Session(pair, threads=1)
    with ThreadPoolExecutor(8) as pool:
        for i, x_hat in enumerate(pool.map(explain, [*range(8)] * 5)):
            np.testing.assert_array_equal(x_hat, alone[i % 8])


def test_options_are_passed_through():
    seen = []

    def configure(options):
        options.enable_cpu_mem_arena = False
        seen.append(options)

    session = Session(revgraph.compile(cnn(), variant="salinet"), configure=configure)
    trace = session.forward(picture(1, 3, 8, 8))
    assert session.reverse(trace, trace.y).any()
    assert len(seen) == 2


def test_the_bottleneck_is_handed_over_where_it_lies(monkeypatch):
    """What the reversed graph is fed are the very values that the forward graph left."""
    session = Session(revgraph.compile(cnn(), variant="salinet"))
    trace, fed = session.forward(picture(1, 3, 8, 8)), {}
    run = capture.run

    def noted(graph, names, feeds, device):
        fed.update(feeds)
        return run(graph, names, feeds, device)

    monkeypatch.setattr(capture, "run", noted)
    session.reverse(trace, trace.y)
    assert trace.taps
    assert all(fed[name] is value for name, value in trace.taps.items())


def test_the_reversed_graph_is_opened_for_the_first_numbers_and_then_for_any(monkeypatch):
    opened, open_light = [], session_module.open_light

    def counted(*given):
        opened.append(given)
        return open_light(*given)

    monkeypatch.setattr(session_module, "open_light", counted)
    pair = revgraph.compile(cnn(), variant="desalinet", target="cpu")
    one, other = Session(pair), Session(pair)
    assert len(opened) == 2  # the forward graphs
    x = picture(3, 3, 8, 8)
    trace = other.forward(x)
    other.reverse(trace, picture(*trace.y.shape))
    for images, rows in (1, 1), (1, 1), (1, 5), (2, 2), (1, 1):
        traces = [session.forward(x[:images]) for session in (one, other)]
        p = picture(rows, *trace.y.shape[1:])
        found = [session.reverse(t, p) for session, t in zip((one, other), traces, strict=True)]
        np.testing.assert_allclose(*found, rtol=1e-5, atol=1e-6)
    assert len(opened) == 6


def test_a_model_is_compiled_for_the_device():
    session = Session(cnn(), variant="salinet", at="relu1")
    assert session.pair.metadata["target"] == "cpu"
    assert (session.pair.variant, session.pair.at) == ("salinet", "relu1")
    x = picture(1, 3, 8, 8)
    trace = session.forward(x)
    by_hand = Session(revgraph.compile(cnn(), variant="salinet", at="relu1"))
    expected = by_hand.reverse(by_hand.forward(x), trace.y)
    np.testing.assert_allclose(session.reverse(trace, trace.y), expected, rtol=1e-5, atol=1e-6)
    assert Session(cnn(), variant="salinet", target="portable").pair.metadata["target"] == "portable"


def test_a_compilation_is_told_no_more():
    with pytest.raises(TypeError, match="a compilation takes no at"):
        Session(revgraph.compile(cnn(), variant="salinet"), at="relu1")


# ----- NaN, infinities, denormals -----


def ort(array):
    return session_module.ort_value(array)  # as any other library's tensor on the CPU


@pytest.mark.parametrize("given", [np.asarray, ort])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_x_and_p_that_are_not_finite_are_refused(session, value, given):
    x, p = picture(2, 3, 8, 8), np.zeros((2, 5), np.float32)
    trace = session.forward(given(x))
    x[1, 2, 0, 7] = p[1, 3] = value
    kind = "NaN" if np.isnan(value) else "infinite"
    why = rf"cannot run 'net': input 'x' holds 1 {kind} of 384 numbers, the first at \[1, 2, 0, 7\]"
    assert isinstance(refused(why, session.forward, given(x)), NotFiniteError)
    refused(why, session.layers, x, p)
    why = rf"cannot project on p: it holds 1 {kind} of 10 numbers, the first at \[1, 3\]"
    refused(why, session.reverse, trace, given(p))


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floating_types_are_looked_at_too(dtype):
    source = model([node("Relu", "x", "y")], ["N", 1, 2, 2])
    for value in (*source.graph.input, *source.graph.output):
        value.type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    session = Session(source, variant="identity")
    x = np.array([1, 2, np.inf, 4], dtype).reshape(1, 1, 2, 2)
    refused(r"input .x. holds 1 infinite of 4 numbers, the first at \[0, 0, 1, 0\]", session.forward, x)


def test_another_input_may_mask_by_infinity_but_not_be_nan():
    net = model(
        [node("Relu", "x", "r"), node("Add", "r z", "m"), node("Softmax", "m", "y", axis=1)], ["N", 4, 1]
    )
    net.graph.input.append(helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, ["N", 4, 1]))
    net.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 4, 1]))
    session = Session(net, variant="salinet", input="x", at="y")
    x, z = picture(1, 4, 1), np.array([0, -np.inf, 0, 0], np.float32).reshape(1, 4, 1)
    trace = session.forward(x, z=z)
    assert trace.y[0, 1] == 0
    assert np.isfinite(session.reverse(trace, np.ones_like(trace.y))).all()
    z[0, 2] = np.nan
    refused("input 'z' holds 1 NaN and 1 infinite of 4 numbers", session.forward, x, z=z)


PLACES = [("portable", "plain"), ("cpu", "plain"), ("cpu", "packed"), ("web", "plain"), ("cuda", "packed")]


@pytest.mark.parametrize(("target", "bottleneck"), PLACES)
def test_y_that_overflows_names_the_first_layer(target, bottleneck):
    net = overflowing(1e20, 1e19, 1e-20)
    pair = revgraph.compile(net, variant="desalinet", target=target, bottleneck=bottleneck)
    session = Session(pair, threads=1)
    x = np.ones((2, 3, 8, 8), np.float32)
    x[1] = 0.1
    x[0, 1:] = 0
    why = "cannot reverse 'net': y holds 192 NaN of 384 numbers|y holds 192 infinite of 384 numbers"
    error = refused(why, session.forward, x)
    assert error.why.endswith(", the first at [0, 0, 0, 0]; the first layer that does is 'conv2'")
    assert error.remedy == "check the model's weights, and how x is scaled"
    assert np.isfinite(session.forward(x[1:]).y).all()
    assert not np.isfinite(Session(pair, check=False).forward(x).y).all()


@pytest.mark.parametrize(("target", "bottleneck"), PLACES)
def test_x_hat_that_overflows_names_the_first_layer_on_the_way_back(target, bottleneck):
    net = overflowing(1e20, 1e19, 1e-25)
    pair = revgraph.compile(net, variant="desalinet", target=target, bottleneck=bottleneck)
    session = Session(pair, threads=1)
    trace = session.forward(np.full((1, 3, 8, 8), 1e-10, np.float32))
    p = np.zeros((2, 3, 8, 8), np.float32)
    p[0, 0, 4, 5], p[1, 0, 4, 5] = 1, 1e30
    assert np.isfinite(session.reverse(trace, p[:1])).all()
    error = refused("cannot reverse 'net': x_hat holds 3 infinite of 384 numbers", session.reverse, trace, p)
    assert "the first at [1, 0, 4, 5]; the first layer that does is 'x'" in error.why
    p[1, 0, 4, 5] = 3e38
    pair = revgraph.compile(overflowing(1e-10, 1e30, 1e5), variant="salinet", target=target)
    session = Session(pair, threads=1)
    trace = session.forward(np.zeros((1, 3, 8, 8), np.float32))
    assert "layer that does is 'conv2'" in refused("x_hat holds", session.reverse, trace, p).why


def test_float16_that_overflows_is_told_to_go_without():
    """Beyond float32 too: within a graph onnxruntime's CPU computes float16 in that."""
    pair = revgraph.compile(overflowing(6e4, 6e4, 6e4), variant="salinet", precision="fp16")
    x = np.full((1, 3, 8, 8), 1e30, np.float32)
    error = refused("y holds 192 infinite of 192 numbers", Session(pair, threads=1).forward, x)
    assert error.remedy == "compile with --precision fp32"


def test_denormal_x_and_weights_are_as_in_float64():
    """onnxruntime's CPU flushes none: each is right to the least number that float32 has."""
    rng = np.random.default_rng(0)
    w = np.array([[1e-40, -3e-39], [2e-41, 1.0]], np.float32).reshape(2, 2, 1, 1)
    nodes = [node("Conv", "x w", "c"), node("Relu", "c", "r"), node("Conv", "r w", "y")]
    net = model(nodes, ["N", 2, 4, 4], {"w": w})
    x = (rng.standard_normal((1, 2, 4, 4)) * 1e-39).astype(np.float32)
    pair = revgraph.compile(net, variant="salinet")
    session = Session(pair, threads=1)
    trace = session.forward(x)
    expected = reference.forward(net, {"x": x})
    assert 0 < np.abs(trace.y).max() < 2.0**-126
    np.testing.assert_allclose(trace.y, expected["y"], rtol=0, atol=2.0**-148)
    p = np.ones_like(trace.y)
    weights = {tensor.name: numpy_helper.to_array(tensor).astype(float) for tensor in net.graph.initializer}
    back = reference.reverse(net, weights | expected, p=p, variant="salinet", at="y", to="x", lrn="identity")
    x_hat = session.reverse(trace, p)
    assert (x_hat != 0).any()
    np.testing.assert_allclose(x_hat, back["x"], rtol=1e-6, atol=2.0**-148)
