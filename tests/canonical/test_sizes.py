"""Arithmetic of sizes, as exporters leave it before a Reshape: each chain against onnxruntime's own run."""

import itertools

import numpy as np
import pytest
from layers import refusal, reverse
from networks import model, node, picture, run

import revgraph
from revgraph import canonical
from revgraph.graph import producer

TENSORS = {
    "-1": np.array([-1]),
    "0": np.array([0]),
    "1": np.array([1]),
    "2": np.array([2]),
    "3": np.array([3]),
    "4": np.array([4]),
    "end": np.array([2**62]),
    "back": np.array([-(2**62)]),
    "one": np.array(1),
    "two": np.array(2),
    "threes": np.array([3, 3, 3, 3]),
    "fours": np.array([4, 4, 4, 4]),
    "1122": np.array([1, 1, 2, 2]),
    "3245": np.array([3, 2, 4, 5]),
    "2,4": np.array([2, 4]),
    "1.5": np.array([1.5], np.float32),
    "half": np.array([1, 1, 0.5, 0.5], np.float32),
    "inf": np.array([np.inf], np.float32),
    "yes": np.array([True]),
    "six": np.array([6]),
}


def take(source, i, name):
    return node("Slice", f"{source} {i} {i + 1}", name)


def floats(*nodes):
    return [node("Cast", "s", "f", to=1), *nodes]


# What makes `e`, one number, of `s`, the shape (N, 4, 6, 5) of x
CHAINS = {
    "Add": [node("Add", "s 1122", "a"), take("a", 1, "b"), node("Sub", "b 3", "e")],
    "And, Or": [
        node("Greater", "s fours", "g"),
        node("Less", "s fours", "l"),
        node("Or", "g l", "o"),
        node("And", "o g", "a"),
        node("Where", "a threes s", "w"),
        take("w", 2, "e"),
    ],
    "Cast to an integer rounds towards zero": floats(
        node("Mul", "f half", "h"),
        node("Cast", "h", "i", to=7),
        node("Mul", "i 1122", "m"),
        take("m", 3, "e"),
    ),
    "Cast to a float, and its quotient is none of integers": floats(
        take("f", 3, "a"),
        take("f", 1, "b"),
        node("Div", "a b", "q"),
        node("Div", "b q", "r"),
        node("Cast", "r", "e", to=7),
    ),
    "Ceil, Floor": floats(
        node("Mul", "f half", "h"),
        node("Ceil", "h", "c"),
        node("Floor", "h", "d"),
        node("Sub", "c d", "r"),
        node("Add", "r d", "t"),
        node("Cast", "t", "i", to=7),
        take("i", 3, "e"),
    ),
    "Concat": [node("Concat", "s 3", "c", axis=0), node("Slice", "c 4 end", "e")],
    "Div": [node("Div", "s 1122", "d"), take("d", 2, "e")],
    "Div towards zero": [
        node("Neg", "s", "n"),
        node("Div", "n fours", "d"),
        take("d", 3, "m"),
        node("Neg", "m", "p"),
        node("Add", "p 3", "e"),
    ],
    "Equal": [node("Equal", "s fours", "q"), node("Where", "q threes s", "w"), take("w", 2, "e")],
    "Gather": [node("Gather", "s two", "g"), node("Unsqueeze", "g 0", "e")],
    "Gather several": [node("Gather", "s 1122", "g"), take("g", 1, "e")],
    "Identity": [node("Identity", "s", "i"), take("i", 2, "e")],
    "Max, Min": [node("Max", "s fours", "a"), node("Min", "a 1122", "b"), take("b", 2, "e")],
    "Mod": [node("Mod", "s fours", "m"), take("m", 2, "e")],
    "Mod of a negative number": [node("Neg", "s", "n"), node("Mod", "n fours", "m"), take("m", 3, "e")],
    "Mod as in C": [
        node("Neg", "s", "n"),
        node("Mod", "n fours", "m", fmod=1),
        node("Neg", "m", "p"),
        take("p", 2, "e"),
    ],
    "Mod is of integers": [
        node("Mod", "s fours", "m"),
        node("Div", "m fours", "d"),
        take("d", 2, "d2"),
        node("Add", "d2 2", "e"),
    ],
    "Mul": [node("Mul", "s 1122", "m"), take("m", 3, "e")],
    "Not": [
        node("Greater", "s fours", "g"),
        node("Not", "g", "t"),
        node("Where", "t threes s", "w"),
        take("w", 2, "e"),
    ],
    "ReduceProd": [node("Slice", "s 2 4", "hw"), node("ReduceProd", "hw", "e")],
    "Reshape": [take("s", 2, "a"), node("Reshape", "a 1", "e")],
    "Slice backwards": [node("Slice", "s -1 back 0 -1", "b"), take("b", 1, "e")],
    "Slice from the end": [node("Slice", "s -1 end", "e")],
    "Squeeze, Unsqueeze": [take("s", 2, "a"), node("Squeeze", "a 0", "b"), node("Unsqueeze", "b 0", "e")],
    "bounds that are infinite": floats(
        node("Min", "f inf", "a"), node("Floor", "a", "b"), node("Cast", "b", "i", to=7), take("i", 2, "e")
    ),
    "Shape of a part": [node("Shape", "x", "e", start=2, end=-1)],
}


def net(nodes, shape=("N", 4, 6, 5), tensors=TENSORS):
    """x reshaped to [N, e, the rest]."""
    ends = [node("Concat", "0 e -1", "target", axis=0), node("Reshape", "x target", "y")]
    used = [node("Shape", "x", "s"), *nodes, *ends]
    read = {name for each in used for name in each.input}
    return model(used, shape, {name: values for name, values in tensors.items() if name in read})


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("batch", ["N", 2])
def test_chains_fold_to_what_they_compute(chain, batch):
    source = net(CHAINS[chain], (batch, 4, 6, 5))
    x = picture(2, 4, 6, 5)
    y = run(source, x=x)["y"]
    assert [each.op for each in canonical.canonicalise(source).nodes] == ["Reshape"]
    session = revgraph.Session(revgraph.compile(source, variant="salinet"), threads=1)
    trace = session.forward(x)
    np.testing.assert_array_equal(trace.y, y)
    np.testing.assert_array_equal(session.reverse(trace, y), x)


@pytest.mark.parametrize("batch", ["N", 2])
@pytest.mark.parametrize("size", [(6, 5), (4, 10)])
def test_names_of_free_sizes_are_followed(size, batch):
    """(N, 4, H, W) to (N, 2, 2, H, W) and back, as a shuffle of channels is exported."""
    numbers = [(node("Gather", f"s i{i}", f"g{i}"), node("Unsqueeze", f"g{i} 0", f"u{i}")) for i in (0, 2, 3)]
    nodes = [
        node("Shape", "x", "s"),
        *itertools.chain(*numbers),
        node("Concat", "u0 2 2 u2 u3", "t", axis=0),
        node("Reshape", "x t", "r"),
        node("Transpose", "r", "u", perm=[0, 2, 1, 3, 4]),
        node("Concat", "u0 4 u2 u3", "back", axis=0),
        node("Reshape", "u back", "y"),
    ]
    tensors = {
        "0": np.array([0]),
        "2": np.array([2]),
        "4": np.array([4]),
        **{f"i{i}": np.array(i) for i in (0, 2, 3)},
    }
    source, p = model(nodes, [batch, 4, "H", "W"], tensors), picture(2, 4, *size)
    x_hat = reverse(source, picture(2, 4, *size), p)
    np.testing.assert_array_equal(x_hat, p.reshape(2, 2, 2, *size).swapaxes(1, 2).reshape(2, 4, *size))


# What depends on more than sizes, or is no list
LEFT = {
    "Gather of rows": [
        node("Concat", "s 3245", "c", axis=0),
        node("Reshape", "c 2,4", "table"),
        node("Gather", "table 1", "row", axis=0),
        node("Reshape", "row -1", "r"),
        take("r", 0, "e"),
    ],
    "Slice of rows": [
        node("Concat", "s 3245", "c", axis=0),
        node("Reshape", "c 2,4", "table"),
        node("Slice", "table 1 2", "row"),
        node("Reshape", "row -1", "r"),
        take("r", 0, "e"),
    ],
}


@pytest.mark.parametrize("chain", LEFT)
def test_tables_of_sizes_are_left(chain):
    """And so the shape is not known, rather than wrong."""
    source = net(LEFT[chain])
    assert len(canonical.canonicalise(source).nodes) > 1
    assert refusal(source)[1].startswith("it turns ['N', 4, 6, 5] into ")


def test_a_product_beyond_float_is_left():
    """Forty sizes of 2^32: int64 drops all but the last 64 bits, which are zero."""
    parts = " ".join(["size"] * 40)
    nodes = [
        node("Shape", "x", "shape"),
        node("Gather", "shape one", "size"),
        node("Concat", parts, "sizes", axis=0),
        node("ReduceProd", "sizes", "n"),
        node("Cast", "n", "f", to=1),
        node("Mul", "x f", "y"),
    ]
    source = model(nodes, ["N", 2**32, 2], {"one": np.array([1])})
    (mul,) = canonical.canonicalise(source).nodes
    assert mul.inputs[1].values == 0


def test_a_number_too_large_for_its_type_is_left():
    nodes = floats(
        node("Mul", "f huge", "h"), node("Cast", "h", "i", to=7), node("Min", "i six", "m"), take("m", 2, "e")
    )
    source = net(nodes, tensors=TENSORS | {"huge": np.array([np.inf], np.float32)})
    (reshape,) = (n for n in canonical.canonicalise(source).nodes if n.op == "Reshape")
    assert producer(reshape.inputs[1]) is not None
    assert refusal(source)[0] == "cannot reverse node 'h'"  # an infinite factor
