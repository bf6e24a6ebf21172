"""The walk over whole graphs, against the paper's equations in float64 and against derivatives."""

import networks
import numpy as np
import onnx
import pytest
from layers import assert_close, mixed, refusal, reverse, weights
from networks import model, node, picture

import revgraph
from revgraph import reference

VARIANTS = list(revgraph.VARIANTS)


def by_reference(net, x, p, variant, at="y", **options):
    values = reference.forward(net, {"x": x})
    return reference.reverse(net, values, variant=variant, at=at, to="x", p=p, **options)["x"]


def assert_as_reference(net, x, variant, at="y"):
    session = revgraph.Session(revgraph.compile(net, variant=variant, at=at), threads=1)
    trace = session.forward(x)
    p = picture(*trace.y.shape, seed=5)
    x_hat = session.reverse(trace, p)
    assert np.abs(x_hat).max() > 0
    assert_close(x_hat, by_reference(net, x, p, variant, at))


def taps_of(session, x):
    return {name: tap.numpy() for name, tap in session.forward(x).taps.items()}


# ----- Fan-out: contributions add -----

C = [1, 1, 1, 1]
# id: nodes from x of (N, 4, 6, 6) to y
BRANCHES = {
    "residual": [node("Conv", "x w", "a", pads=C), node("Relu", "a", "b"), node("Conv", "b v", "c", pads=C),
                 node("Relu", "x", "d"), node("Add", "c d", "e"), node("Relu", "e", "y")],
    "inception": [node("Conv", "x u", "stem"), node("Relu", "stem", "s"), node("Conv", "s u", "a"),
                  node("Conv", "s w", "b0", pads=C), node("Relu", "b0", "b"),
                  node("MaxPool", "s", "c", kernel_shape=[3, 3], pads=C),
                  node("AveragePool", "s", "d", kernel_shape=[3, 3], pads=C),
                  node("Concat", "a b c d s", "y", axis=1)],
    "three uses": [node("Relu", "x", "r"), node("Conv", "r u", "a"), node("Conv", "r w", "b", pads=C),
                   node("Relu", "b", "c"), node("Sum", "a c r", "y")],
    "the input twice": [node("Conv", "x w", "a", pads=C), node("MaxPool", "x", "b", kernel_shape=[3, 3],
                        pads=C), node("Add", "a b", "y")],
    "one node twice": [node("Conv", "x w", "a", pads=C), node("Relu", "a", "r"), node("Add", "r r", "y")],
    "a branch that ends": [node("Relu", "x", "y"), node("Conv", "x w", "a"), node("Softmax", "a", "other")],
}  # fmt: skip
WEIGHTS = {"u": weights(4, 4, 1, 1), "w": weights(4, 4, 3, 3), "v": weights(4, 4, 3, 3)[::-1]}


@pytest.mark.parametrize("case", BRANCHES)
@pytest.mark.parametrize("variant", ["identity", "deconvnet", "salinet", "desalinet-centre"])
def test_contributions_add(case, variant):
    net = model(BRANCHES[case], ["N", 4, 6, 6], WEIGHTS, outputs=sorted({BRANCHES[case][-1].output[0], "y"}))
    assert_as_reference(net, picture(2, 4, 6, 6), variant)


@pytest.mark.parametrize("variant", VARIANTS)
def test_whole_networks(variant):
    """Masks and switches are exact, so that only the float32 sums differ."""
    assert_as_reference(mixed(), picture(3, 4, 9, 9), variant)


@pytest.mark.parametrize("at", ["pool1", "rm", "sum", "shuffled", "fc1"])
def test_y_inside_the_network(at):
    """Its consumers read it still, and say nothing of x_hat."""
    assert_as_reference(mixed(), picture(2, 4, 9, 9), "salinet", at)


# ----- SaliNet is the derivative: Eq. (3) -----

CONV = [node("Conv", "x w b", "c", pads=C)]
DIFFERENTIABLE = {
    "conv, ReLU, conv": [*CONV, node("Relu", "c", "r"), node("Conv", "r v", "y", strides=[2, 2])],
    "LRN": [*CONV, node("LRN", "c", "n", size=3, alpha=2.0), node("Conv", "n v", "y")],
    "overlapping max pool": [*CONV, node("MaxPool", "c", "m", kernel_shape=[3, 3], strides=[2, 2]),
                             node("Conv", "m u", "y")],
    "average pool": [*CONV, node("AveragePool", "c", "m", kernel_shape=[3, 3], strides=[2, 2], pads=C),
                     node("Relu", "m", "y")],
    "residual": [*CONV, node("Add", "c x", "s"), node("Relu", "s", "y")],
    "concat": [*CONV, node("Relu", "c", "r"), node("Concat", "r x", "m", axis=1), node("Relu", "m", "y")],
    "batch normalisation": [*CONV, node("BatchNormalization", "c b b b b", "n"), node("Relu", "n", "y")],
    "gemm": [*CONV, node("Relu", "c", "r"), node("Flatten", "r", "f"), node("Gemm", "f g", "y", alpha=0.5)],
}  # fmt: skip


def assert_derivative(net, x, lrn=None):
    """<x_hat, v> = d/dt <p, phi(x + t v)> at t = 0, along some v.

    x_hat is float32 and errs by about 1e-6 of its norm; the difference, of step 1e-6 in float64, by 1e-9.
    """
    rng, eps = np.random.default_rng(8), 1e-6
    p = picture(*reference.forward(net, {"x": x})["y"].shape, seed=6)
    x_hat = reverse(net, x, p, "salinet", at="y", **({} if lrn is None else {"lrn": lrn}))
    for _ in range(5):
        v = rng.standard_normal(x.shape)
        up, down = (reference.forward(net, {"x": x + t * v})["y"] for t in (eps, -eps))
        slope = (p * (up - down)).sum() / (2 * eps)
        assert abs(slope - (x_hat * v).sum()) < 1e-5 * np.linalg.norm(x_hat) * np.linalg.norm(v)


@pytest.mark.parametrize("case", DIFFERENTIABLE)
def test_salinet_is_the_derivative_of_the_projected_output(case):
    tensors = WEIGHTS | {"b": np.array([0.5, 1, 0.25, 0.75], np.float32), "g": weights(144, 5)}
    assert_derivative(
        model(DIFFERENTIABLE[case], ["N", 4, 6, 6], tensors, outputs=["y"]), picture(2, 4, 6, 6), "bp"
    )


def test_so_it_is_of_a_whole_network():
    assert_derivative(mixed(), picture(2, 4, 9, 9))


# ----- Taps -----


def test_taps_are_called_after_their_node():
    pair = revgraph.compile(mixed(), variant="salinet")
    masks = {f"{relu}/mask" for relu in ("relu1", "rm", "sumr", "fc1r")}
    assert set(pair.taps) == masks | {"norm1/value", "pool1/switches", "pool2/switches"}
    assert list(pair.taps) == [value.name for value in pair.forward.graph.output][-len(pair.taps) :]
    assert {value.name for value in pair.reversed.graph.input} == {"p", *pair.taps}


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_tap_is_there_unread(variant):
    pair = revgraph.compile(mixed(), variant=variant)
    read = {name for layer in pair.reversed.graph.node for name in layer.input}
    kinds = {tap.rpartition("/")[2] for tap in pair.taps}
    expected = {"mask"} if variant.startswith(("salinet", "desalinet")) else set()
    expected |= set() if variant.endswith("-centre") else {"switches"}
    assert set(pair.taps) <= read
    assert kinds == expected | ({"value"} if variant == "salinet" else set())


def test_shared_weights_are_stored_once():
    nodes = [node("Conv", "x w", "a", pads=C), node("Relu", "a", "b"), node("Conv", "b w", "y", pads=C)]
    net = model(nodes, ["N", 4, 6, 6], {"w": WEIGHTS["w"]})
    pair = revgraph.compile(net, variant="desalinet")
    for part in (pair.forward, pair.reversed, pair.fused()):
        assert [t.name for t in part.graph.initializer if t.dims == [4, 4, 3, 3]] == ["w"]
    assert_as_reference(net, picture(2, 4, 6, 6), "desalinet")


def test_second_outputs_are_refused():
    split = onnx.helper.make_node("Split", ["x"], ["a", "b"], name="split", axis=2, num_outputs=2)
    assert refusal(model([split, node("Relu", "b", "y")], ["N", 4, "W"], opset=18)) == (
        "cannot reverse node 'split' (Split)",
        "an output other than its first is used",
        "choose --at before this node",
    )


def test_what_a_reversal_does_not_read_is_no_tap():
    """Of y = x z only z is needed for x_hat = y_hat z."""
    pair = revgraph.compile(with_input("z", [node("Mul", "x z", "y")]), variant="salinet", input="x")
    assert pair.taps == ("y/value_1",)
    assert [value.name for value in pair.forward.graph.output] == ["y", "y/value_1"]
    session = revgraph.Session(pair, threads=1)
    x, z, p = (picture(2, 4, 6, 6, seed=seed) for seed in range(3))
    np.testing.assert_array_equal(session.reverse(session.forward(x, z=z), p), p * z)


def with_input(name, nodes, shape=("N", 4, 6, 6), kind=onnx.TensorProto.FLOAT):
    """A network from x and one more input to y, of which nothing is declared but its rank."""
    net = model([node("Identity", "x", "y")], ["N", 4, 6, 6])
    del net.graph.node[:]
    net.graph.node.extend(nodes)
    net.graph.input.append(onnx.helper.make_tensor_value_info(name, kind, shape))
    return net


def test_a_sum_is_written_only_where_branches_meet():
    """The two of which a convolution comes second become one operation in onnxruntime: Add, not Sum."""
    chain = [node("Conv", "x w", "a", pads=C), node("Relu", "a", "b"), node("Conv", "b v", "y", pads=C)]
    for nodes, expected in (
        (chain, []),
        (BRANCHES["one node twice"], ["Add"]),
        (BRANCHES["three uses"], ["Sum"]),
    ):
        pair = revgraph.compile(model(nodes, ["N", 4, 6, 6], WEIGHTS, outputs=["y"]), variant="deconvnet")
        operators = [layer.op_type for layer in pair.reversed.graph.node]
        assert [operator for operator in operators if operator in ("Add", "Sum")] == expected


# ----- Refusals -----


def test_a_tensor_of_unknown_shape_is_refused():
    nodes = [node("Reshape", "x t", "a"), node("Relu", "a", "b"), node("Expand", "b s", "y")]
    net = with_input("t", nodes, ["R"], onnx.TensorProto.INT64)
    net.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 4, 6, 6]), "s"))
    assert refusal(net, input="x", at="y") == (
        "cannot reverse node 'y' (Expand)",
        "the shape of 'b' is not known",
        "export with fixed shapes",
    )


def test_a_number_of_the_whole_batch_is_refused():
    nodes = [node("ReduceSum", "x", "all", keepdims=0), node("Reshape", "all t", "y")]
    assert refusal(model(nodes, [1, 4, 3], {"t": np.array([1, 1])})) == (
        "cannot reverse node 'y' (Reshape)",
        "it changes the batch from 0 to 1",
        "keep the batch on the first axis, or declare the model's batch as what the node makes of it",
    )


# ----- Batches and projections -----


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_batch_is_its_images_one_by_one(variant):
    session = revgraph.Session(revgraph.compile(mixed(), variant=variant), threads=1)
    x, p = picture(3, 4, 9, 9), picture(3, 5, seed=1)
    alone = [session.reverse(session.forward(x[[i]]), p[[i]]) for i in range(3)]
    assert_close(session.reverse(session.forward(x), p), np.concatenate(alone))
    parts = [taps_of(session, x[[i]]) for i in range(3)]
    for name, tap in taps_of(session, x).items():
        together = np.concatenate([part[name] for part in parts])
        if tap.dtype == np.float32:
            assert_close(tap, together)
        else:
            np.testing.assert_array_equal(tap, together)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("batch", ["N", 1])
def test_projections_of_one_image_are_as_many_runs(variant, batch):
    session = revgraph.Session(revgraph.compile(mixed(batch), variant=variant), threads=1)
    trace, p = session.forward(picture(1, 4, 9, 9)), picture(5, 5, seed=2)
    alone = [session.reverse(trace, p[[i]]) for i in range(5)]
    assert_close(session.reverse(trace, p), np.concatenate(alone))


@pytest.mark.parametrize("name", ["N", "P", "batch"])
def test_the_batch_may_have_any_name(name):
    pair = revgraph.compile(mixed(name), variant="desalinet")
    p, x_hat = pair.reversed.graph.input[0], pair.reversed.graph.output[0]
    rows = {value.name: value.type.tensor_type.shape.dim[0].dim_param for value in (p, x_hat)}
    assert rows["p"] not in ("", name)
    assert rows["x_hat"] == rows["p"]
    assert_as_reference(mixed(name), picture(2, 4, 9, 9), "desalinet")


def any_size():
    """Windows that leave remainders of their own at every size."""
    nodes = [
        node("Conv", "x w", "c", strides=[2, 2], pads=[0, 1, 1, 0]),
        node("Relu", "c", "r"),
        node("MaxPool", "r", "m", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
        node("Conv", "m v", "d", strides=[3, 2], pads=C),
        node("MaxPool", "d", "e", kernel_shape=[2, 2], strides=[1, 2]),
        node("GlobalAveragePool", "e", "g"),
        node("Flatten", "g", "f"),
        node("Gemm", "f k", "y"),
    ]
    return model(nodes, ["N", 4, "H", "W"], WEIGHTS | {"k": weights(4, 3)})


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_compilation_serves_every_size(variant):
    session = revgraph.Session(revgraph.compile(any_size(), variant=variant), threads=1)
    for n, *size in (2, 23, 30), (1, 24, 21), (3, 33, 26):
        x, p = picture(n, 4, *size, seed=n), picture(n, 3)
        trace = session.forward(x)
        assert_close(session.reverse(trace, p), by_reference(any_size(), x, p, variant))
        for name, tap in trace.taps.items():
            assert tap.shape()[0] == n, name


def test_several_projections_at_a_size_of_the_run():
    session = revgraph.Session(revgraph.compile(any_size(), variant="salinet"), threads=1)
    trace, p = session.forward(picture(1, 4, 23, 30)), picture(4, 3)
    alone = [session.reverse(trace, p[[i]]) for i in range(4)]
    assert_close(session.reverse(trace, p), np.concatenate(alone))


@pytest.mark.parametrize("variant", ["salinet", "deconvnet-centre"])
def test_the_forward_file_computes_what_the_model_does(variant):
    x = picture(2, 4, 9, 9)
    pair = revgraph.compile(mixed(), variant=variant, at="pool1")
    outputs = revgraph.Session(pair, threads=1).forward(x).outputs
    assert list(outputs) == ["y", "pool1"]
    assert_close(outputs["y"], networks.run(mixed(), x=x)["y"])


def test_the_model_given_is_left_alone():
    net = mixed()
    before = net.SerializeToString(deterministic=True)
    revgraph.compile(net, variant="salinet")
    assert net.SerializeToString(deterministic=True) == before
