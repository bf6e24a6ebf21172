"""Changes to an ONNX model that keep it readable by protobuf, and most often make it wrong.

Each is a function of a random generator and the model, which it changes; `mutate` draws a few of them.
"""

import random
from collections.abc import Callable, Iterator

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper

SIZES = (0, -1, 1, 2, 3, 7, 16, 100, 1023, 2**31 - 1, 2**31, -(2**31), 2**40, 2**62, 2**63 - 1, -(2**63))
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 1e-7, 3.4e38, float("inf"), float("-inf"), float("nan"))
TYPES = (*range(30), 99, 110, -1)
NAMES = (
    *("", "p", "x_hat", "x", "class", "P", "N", "relu1/mask", "constant/int64/1/0", "unk__0", "ai.onnx"),
    *("two\nlines", "\x1b[31mred", "a\x00b", "ünïcödé ✓", "..", "/", "a/b", "\u202eback", "a" * 3000),
)
BYTES = (
    *(b"", b"\xff\xfe", b"NOTSET", b"SAME_UPPER", b"VALID", b"linear", b"cubic", b"asymmetric"),
    *(b"constant", b"reflect"),
)
LOCATIONS = (
    *("weights.bin", "/etc/passwd", "../weights.bin", "link", "loop", ".", "", "/dev/zero", "pipe"),
    "a\x00b",
)
OPERATORS = tuple(sorted({schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain}))
COMMON = (
    *("Relu", "Conv", "MaxPool", "AveragePool", "Gemm", "LRN", "Reshape", "Dropout", "Cast", "Concat"),
    *("Pad", "Resize", "Transpose", "Split", "Clip", "Mul", "Add", "BatchNormalization", "ConvTranspose"),
    *("Flatten", "Shape", "Gather", "Expand", "Tile", "ConstantOfShape", "Range", "Where", "MatMul"),
    *("Slice", "Softmax"),
)

Rng = random.Random
Mutation = Callable[[Rng, ModelProto], None]

# ----- Where -----


def graphs_of(model: ModelProto) -> list[GraphProto]:
    """The main graph and all inner ones."""
    found = [model.graph]
    for graph in found:
        for node in graph.node:
            for attribute in node.attribute:
                found.extend([attribute.g] if attribute.HasField("g") else [])
                found.extend(attribute.graphs)
    return found


def a_graph(rng: Rng, model: ModelProto) -> GraphProto:
    return model.graph if rng.random() < 0.7 else rng.choice(graphs_of(model))


def a_node(rng: Rng, model: ModelProto) -> NodeProto:
    graph = a_graph(rng, model)
    return rng.choice(graph.node) if graph.node else NodeProto()


def a_tensor(rng: Rng, model: ModelProto) -> TensorProto:
    inner = [a.t for node in model.graph.node for a in node.attribute if a.HasField("t")]
    held = [*a_graph(rng, model).initializer, *inner]
    return rng.choice(held) if held else TensorProto()


def a_name(rng: Rng, model: ModelProto) -> str:
    """Of a tensor that is there, most often."""
    names = [name for node in model.graph.node for name in (*node.input, *node.output)]
    names += [tensor.name for tensor in model.graph.initializer]
    return rng.choice(names) if names and rng.random() < 0.85 else rng.choice(NAMES)


def a_size(rng: Rng) -> int:
    return rng.choice(SIZES) if rng.random() < 0.6 else rng.randint(-4, 12)


def a_value(rng: Rng, model: ModelProto) -> onnx.ValueInfoProto:
    graph = a_graph(rng, model)
    values = [*graph.input, *graph.output, *graph.value_info]
    return rng.choice(values) if values else onnx.ValueInfoProto()


# ----- Nodes and wires -----


def swap_nodes(rng: Rng, model: ModelProto) -> None:
    nodes = a_graph(rng, model).node
    if len(nodes) > 1:
        i, j = rng.sample(range(len(nodes)), 2)
        first = NodeProto()
        first.CopyFrom(nodes[i])
        nodes[i].CopyFrom(nodes[j])
        nodes[j].CopyFrom(first)


def duplicate_node(rng: Rng, model: ModelProto) -> None:
    node, graph = NodeProto(), a_graph(rng, model)
    node.CopyFrom(a_node(rng, model))
    if rng.random() < 0.8:
        for i, name in enumerate(node.output):
            node.output[i] = f"{name}_again"
    graph.node.append(node)


def delete_node(rng: Rng, model: ModelProto) -> None:
    nodes = a_graph(rng, model).node
    if nodes:
        i = rng.randrange(len(nodes))
        node = nodes.pop(i)
        if rng.random() < 0.7 and node.input and node.output:  # and close the gap
            for reader in nodes:
                for at, name in enumerate(reader.input):
                    reader.input[at] = node.input[0] if name == node.output[0] else name


def rewire_input(rng: Rng, model: ModelProto) -> None:
    """To what is computed later too: cycles."""
    node = a_node(rng, model)
    if node.input:
        node.input[rng.randrange(len(node.input))] = a_name(rng, model)


def change_inputs(rng: Rng, model: ModelProto) -> None:
    node = a_node(rng, model)
    if node.input and rng.random() < 0.5:
        del node.input[rng.randrange(len(node.input))]
    else:
        node.input.insert(rng.randint(0, len(node.input)), a_name(rng, model))


def rename_output(rng: Rng, model: ModelProto) -> None:
    """With or without its readers, to a name that is free, taken or reserved."""
    node, name = a_node(rng, model), a_name(rng, model) if rng.random() < 0.4 else rng.choice(NAMES)
    if not node.output:
        return
    at = rng.randrange(len(node.output))
    old, node.output[at] = node.output[at], name
    if rng.random() < 0.8:
        for reader in model.graph.node:
            for i, read in enumerate(reader.input):
                reader.input[i] = name if read == old else read


def more_outputs(rng: Rng, model: ModelProto) -> None:
    node = a_node(rng, model)
    node.output.append(rng.choice((*NAMES, f"{a_name(rng, model)}_more")))


def rename_node(rng: Rng, model: ModelProto) -> None:
    a_node(rng, model).name = rng.choice(NAMES)


def change_operator(rng: Rng, model: ModelProto) -> None:
    node = a_node(rng, model)
    node.op_type = rng.choice(COMMON if rng.random() < 0.6 else OPERATORS)
    if rng.random() < 0.1:
        node.domain = rng.choice(("ai.onnx", "ai.onnx.ml", "custom", "com.microsoft", "revgraph"))


def insert_node(rng: Rng, model: ModelProto) -> None:
    """An operator, of any that ONNX has, put into a wire, with attributes of the right kind and any value."""
    graph = a_graph(rng, model)
    operator = rng.choice(COMMON if rng.random() < 0.4 else OPERATORS)
    schema = onnx.defs.get_schema(operator)
    read = a_name(rng, model)
    others = max(schema.min_input - 1, 0) + rng.choice((0, 0, 0, 1))
    inputs = [read, *(a_name(rng, model) for _ in range(others))]
    outputs = [f"new{rng.randrange(10**6)}" for _ in range(max(schema.min_output, 1))]
    node = helper.make_node(operator, inputs, outputs, rng.choice((outputs[0], "", rng.choice(NAMES))))
    for declared in schema.attributes.values():
        if declared.required or rng.random() < 0.5:
            node.attribute.append(attribute(rng, declared.name, int(declared.type.value)))
    for reader in graph.node:
        for i, name in enumerate(reader.input):
            if name == read and rng.random() < 0.8:
                reader.input[i] = outputs[0]
    after = [i for i, other in enumerate(graph.node) if read in other.output]
    graph.node.insert(after[0] + 1 if after else rng.randint(0, len(graph.node)), node)


# ----- Attributes -----


def attribute(rng: Rng, name: str, kind: int) -> AttributeProto:
    """Any value of a kind; for a tensor or a graph a small one."""
    made, few = AttributeProto(name=name, type=kind), range(rng.choice((0, 1, 1, 2, 2, 3, 4, 5, 8)))
    match kind:
        case AttributeProto.INT:
            made.i = a_size(rng)
        case AttributeProto.FLOAT:
            made.f = rng.choice(FLOATS)
        case AttributeProto.STRING:
            made.s = rng.choice(BYTES)
        case AttributeProto.TENSOR:
            made.t.CopyFrom(tensor(rng, ""))
        case AttributeProto.GRAPH:
            made.g.CopyFrom(body(rng, "inner"))
        case AttributeProto.INTS:
            made.ints.extend(a_size(rng) for _ in few)
        case AttributeProto.FLOATS:
            made.floats.extend(rng.choice(FLOATS) for _ in few)
        case AttributeProto.STRINGS:
            made.strings.extend(rng.choice(BYTES) for _ in few)
        case AttributeProto.SPARSE_TENSOR:
            made.sparse_tensor.CopyFrom(sparse(rng))
    return made


def tensor(rng: Rng, name: str) -> TensorProto:
    dims = [rng.choice((0, 1, 1, 2, 3, 4)) for _ in range(rng.choice((0, 1, 1, 1, 2, 4)))]
    count = 1
    for dim in dims:
        count *= dim
    if rng.random() < 0.5:
        return helper.make_tensor(name, TensorProto.INT64, dims, [a_size(rng) for _ in range(count)])
    return helper.make_tensor(name, TensorProto.FLOAT, dims, [rng.choice(FLOATS) for _ in range(count)])


def sparse(rng: Rng) -> onnx.SparseTensorProto:
    n = rng.choice((0, 1, 2, 5))
    made = onnx.SparseTensorProto(dims=[abs(a_size(rng)) % 2**62 for _ in range(rng.choice((1, 2, 4)))])
    values = [rng.choice(FLOATS) for _ in range(n)]
    made.values.CopyFrom(helper.make_tensor("sparse", TensorProto.FLOAT, [n], values))
    made.indices.CopyFrom(helper.make_tensor("", TensorProto.INT64, [n], [a_size(rng) for _ in range(n)]))
    return made


def body(rng: Rng, stem: str, read: str = "") -> GraphProto:
    constant = helper.make_node("Constant", [], [f"{stem}/c"], value=tensor(rng, ""))
    nodes = [constant, helper.make_node("Identity", [read or f"{stem}/c"], [f"{stem}/y"])]
    return helper.make_graph(nodes, stem, [], [onnx.ValueInfoProto(name=f"{stem}/y")])


def change_attribute(rng: Rng, model: ModelProto) -> None:
    node = a_node(rng, model)
    if node.attribute:
        chosen = rng.choice(node.attribute)
        if chosen.ints and rng.random() < 0.7:
            chosen.ints[rng.randrange(len(chosen.ints))] = a_size(rng)
        elif chosen.type == AttributeProto.GRAPH:
            chosen.name = rng.choice(("then_branch", "else_branch", "body"))
        else:
            kind = chosen.type if rng.random() < 0.8 else rng.randrange(15)
            chosen.CopyFrom(attribute(rng, chosen.name, kind))


def drop_attribute(rng: Rng, model: ModelProto) -> None:
    node = a_node(rng, model)
    if node.attribute:
        del node.attribute[rng.randrange(len(node.attribute))]


def add_attribute(rng: Rng, model: ModelProto) -> None:
    node = a_node(rng, model)
    has = onnx.defs.has(node.op_type)
    known = list(onnx.defs.get_schema(node.op_type).attributes.values()) if has else []
    if known and rng.random() < 0.85:
        declared = rng.choice(known)
        node.attribute.append(attribute(rng, declared.name, int(declared.type.value)))
    else:
        node.attribute.append(attribute(rng, rng.choice(NAMES), rng.randrange(15)))


def resize_list(rng: Rng, model: ModelProto) -> None:
    node = a_node(rng, model)
    lists = [each.ints for each in node.attribute if each.ints]
    if lists:
        ints = rng.choice(lists)
        if rng.random() < 0.5:
            del ints[rng.randrange(len(ints))]
        else:
            ints.append(a_size(rng))


# ----- Tensors and types -----


def change_dims(rng: Rng, model: ModelProto) -> None:
    held = a_tensor(rng, model)
    if held.dims and rng.random() < 0.7:
        held.dims[rng.randrange(len(held.dims))] = a_size(rng)
    elif held.dims and rng.random() < 0.5:
        del held.dims[rng.randrange(len(held.dims))]
    else:
        held.dims.insert(rng.randint(0, len(held.dims)), rng.choice((1, 1, 2, a_size(rng))))


def change_type(rng: Rng, model: ModelProto) -> None:
    a_tensor(rng, model).data_type = rng.choice(TYPES)


def change_data(rng: Rng, model: ModelProto) -> None:
    held = a_tensor(rng, model)
    match rng.randrange(5):
        case 0:
            held.raw_data = held.raw_data[: rng.randint(0, len(held.raw_data))]
        case 1:
            held.float_data.extend(rng.choice(FLOATS) for _ in range(rng.randint(1, 4)))
        case 2:
            held.int64_data.extend(a_size(rng) for _ in range(rng.randint(1, 4)))
        case 3:
            held.ClearField("raw_data")
        case _ if held.raw_data:
            at = rng.randrange(len(held.raw_data))
            held.raw_data = held.raw_data[:at] + rng.randbytes(4) + held.raw_data[at + 4 :]


def replace_tensor(rng: Rng, model: ModelProto) -> None:
    held = a_tensor(rng, model)
    held.CopyFrom(tensor(rng, held.name))


def add_tensor(rng: Rng, model: ModelProto) -> None:
    a_graph(rng, model).initializer.append(tensor(rng, a_name(rng, model)))


def add_sparse(rng: Rng, model: ModelProto) -> None:
    made = sparse(rng)
    made.values.name = a_name(rng, model)
    model.graph.sparse_initializer.append(made)


def external_data(rng: Rng, model: ModelProto) -> None:
    held = a_tensor(rng, model)
    held.data_location = TensorProto.EXTERNAL
    entries = {"location": rng.choice(LOCATIONS)}
    for key in ("offset", "length"):
        if rng.random() < 0.5:
            entries[key] = str(rng.choice((*SIZES, "x", "", "1e3", "٣")))
    if rng.random() < 0.5:
        held.ClearField("raw_data")
    del held.external_data[:]
    for key, value in entries.items():
        held.external_data.add(key=key, value=value)


def change_value(rng: Rng, model: ModelProto) -> None:
    """The declared type or shape of an input, an output or an inner tensor."""
    value = a_value(rng, model)
    kind = value.type.tensor_type
    dims = kind.shape.dim
    match rng.randrange(8):
        case 0:
            kind.elem_type = rng.choice(TYPES)
        case 1:
            value.ClearField("type")
        case 2:
            kind.ClearField("shape")
        case 3 if dims:
            del dims[rng.randrange(len(dims))]
        case 4:
            dims.add(dim_value=a_size(rng))
        case 5:
            value.name = a_name(rng, model)
        case 6:
            value.type.sequence_type.elem_type.tensor_type.elem_type = 1
        case _ if dims:
            dim = rng.choice(dims)
            if rng.random() < 0.5:
                dim.dim_value = a_size(rng)
            else:
                dim.dim_param = rng.choice(NAMES)


def change_ends(rng: Rng, model: ModelProto) -> None:
    graph = a_graph(rng, model)
    ends = rng.choice((graph.input, graph.output, graph.value_info))
    if ends and rng.random() < 0.4:
        del ends[rng.randrange(len(ends))]
    else:
        dims = [a_size(rng) if rng.random() < 0.5 else rng.randint(1, 8) for _ in range(rng.randint(0, 5))]
        ends.append(helper.make_tensor_value_info(a_name(rng, model), rng.choice((1, 1, 7, 10, 9)), dims))


# ----- The model -----


def change_version(rng: Rng, model: ModelProto) -> None:
    match rng.randrange(5):
        case 0:
            model.ir_version = rng.choice((0, 3, 4, 8, 10, 11, 13, 99, -1, 2**62))
        case 1:
            model.opset_import.add(domain=rng.choice(("", "ai.onnx", "custom", "\n")), version=a_size(rng))
        case 2:
            del model.opset_import[:]
        case _:
            for entry in model.opset_import:
                entry.version = rng.choice((*range(6, 28), a_size(rng)))


def change_texts(rng: Rng, model: ModelProto) -> None:
    text = rng.choice(NAMES)
    match rng.randrange(5):
        case 0:
            model.graph.name = text
        case 1:
            model.doc_string = text
        case 2:
            model.metadata_props.add(key=rng.choice(("revgraph.pair", "revgraph.taps", text)), value=text)
        case 3:
            a_node(rng, model).doc_string = text
        case _:
            a_node(rng, model).metadata_props.add(key=text, value=text)


def in_function(rng: Rng, model: ModelProto) -> None:
    """A node becomes a call of a function that holds it; functions call each other, or themselves."""
    nodes = model.graph.node
    if not nodes:
        return
    node, inner = rng.choice(nodes), NodeProto()
    inner.CopyFrom(node)
    name = f"f{len(model.functions)}"
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    inside = [inner]
    if model.functions and rng.random() < 0.5:
        called = rng.choice([name, *(function.name for function in model.functions)])
        inside += [
            helper.make_node(called, list(node.input), [f"again{i}"], domain="local") for i in range(2)
        ]
    ends = list(filter(None, node.input)), list(node.output)
    model.functions.append(helper.make_function("local", name, *ends, inside, opsets))
    call = helper.make_node(name, *ends, node.name, domain="local")
    node.CopyFrom(call)
    if not any(entry.domain == "local" for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid("local", 1))


def in_branch(rng: Rng, model: ModelProto) -> None:
    """A node becomes an If, some deep, of which a branch or both compute it."""
    nodes = model.graph.node
    if not nodes:
        return
    at = rng.randrange(len(nodes))
    node, stem = nodes[at], f"if{rng.randrange(10**6)}"
    names = list(node.output)[:1]
    inner = NodeProto()
    inner.CopyFrom(node)
    for depth in range(rng.choice((1, 1, 1, 2, 25))):
        made = [f"{stem}/{depth}/y"]
        inner.output[:] = made
        ends = [onnx.ValueInfoProto(name=made[0])]
        then = helper.make_graph([inner], f"{stem}/{depth}", [], ends)
        twice = depth == 0 and rng.random() < 0.5
        other = then if twice else body(rng, f"{stem}/{depth}/else", a_name(rng, model))
        inner = helper.make_node("If", [f"{stem}/c"], names, then_branch=then, else_branch=other)
    condition = helper.make_tensor("", TensorProto.BOOL, [], [rng.random() < 0.5])
    node.CopyFrom(inner)
    if rng.random() < 0.8:
        nodes.insert(at, helper.make_node("Constant", [], [f"{stem}/c"], value=condition))


def in_loop(rng: Rng, model: ModelProto) -> None:
    """A node becomes the body of a Loop or a Scan."""
    nodes = model.graph.node
    if not nodes:
        return
    at = rng.randrange(len(nodes))
    node, stem, scan = nodes[at], f"loop{rng.randrange(10**6)}", rng.random() < 0.4
    if not node.input or not node.output:
        return
    inner = NodeProto()
    inner.CopyFrom(node)
    inner.input[0], inner.output[:] = f"{stem}/x", [f"{stem}/y"]
    keep = helper.make_node("Identity", [f"{stem}/go"], [f"{stem}/on"])
    value = helper.make_tensor_value_info
    ins = [value(f"{stem}/i", TensorProto.INT64, []), value(f"{stem}/go", TensorProto.BOOL, [])]
    x, y, on = (onnx.ValueInfoProto(name=f"{stem}/{end}") for end in ("x", "y", "on"))
    x.type.tensor_type.elem_type = y.type.tensor_type.elem_type = TensorProto.FLOAT
    on.type.tensor_type.elem_type = TensorProto.BOOL
    if scan:
        inside = helper.make_graph([inner], stem, [x], [y])
        made = helper.make_node("Scan", [node.input[0]], [node.output[0]], body=inside, num_scan_inputs=1)
    else:
        inside = helper.make_graph([keep, inner], stem, [*ins, x], [on, y])
        made = helper.make_node("Loop", [f"{stem}/n", "", node.input[0]], [node.output[0]], body=inside)
        count = helper.make_tensor(f"{stem}/n", TensorProto.INT64, [], [rng.choice((1, 2, a_size(rng)))])
        model.graph.initializer.append(count)
    node.CopyFrom(made)


def end_in(graph: GraphProto, name: str, rank: int = 4) -> None:
    """Its first output is called so, and of any size."""
    graph.output[0].CopyFrom(helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank))


def doubling(rng: Rng, model: ModelProto) -> None:
    """A chain of which each node doubles what it reads: 2**depth elements, or branches."""
    graph, read = a_graph(rng, model), a_name(rng, model)
    operator, stem = rng.choice(("Concat", "Add", "Mul", "Sum", "Max")), f"double{rng.randrange(10**6)}"
    last = read
    for i in range(rng.choice((3, 10, 40))):
        attributes = {"axis": rng.choice((0, 1, 2))} if operator == "Concat" else {}
        graph.node.append(helper.make_node(operator, [last, last], [f"{stem}/{i}"], **attributes))
        last = f"{stem}/{i}"
    if rng.random() < 0.7 and graph.output:
        end_in(graph, last)


def cut(rng: Rng, model: ModelProto) -> None:
    """Some node's output is the model's."""
    node = a_node(rng, model)
    if node.output and model.graph.output:
        end_in(model.graph, node.output[0], rng.choice((4, 4, 4, 2, 3)))


MUTATIONS: tuple[tuple[Mutation, int], ...] = (
    *((each, 3) for each in (change_attribute, add_attribute, change_value, insert_node, change_operator)),
    *((each, 2) for each in (rewire_input, change_dims, replace_tensor, cut, drop_attribute, change_version)),
    *((each, 2) for each in (rename_output, duplicate_node, delete_node, change_inputs, in_branch, in_loop)),
    *((each, 1) for each in (swap_nodes, more_outputs, rename_node, resize_list, change_type, change_data)),
    *((each, 1) for each in (add_tensor, add_sparse, external_data, change_ends, change_texts, in_function)),
    (doubling, 1),
)
"""Each with how often it is drawn."""


def mutate(rng: Rng, model: ModelProto, most: int = 4) -> ModelProto:
    """The model after a few changes."""
    drawn, weights = zip(*MUTATIONS, strict=True)
    for mutation in rng.choices(drawn, weights, k=rng.choice((1, 1, 2, 2, 3, most))):
        try:
            mutation(rng, model)
        except (ValueError, TypeError):  # a number that the field does not hold, a text that it does not take
            continue
    return model


def cross(rng: Rng, model: ModelProto, other: ModelProto) -> ModelProto:
    """The model, after whose output, or beside it, another is computed."""
    for node in other.graph.node:
        node.output[:] = [f"other/{name}" if name else name for name in node.output]
        node.input[:] = [f"other/{name}" if name else name for name in node.input]
    for held in other.graph.initializer:
        held.name = f"other/{held.name}"
    source = rng.choice([value.name for value in (*model.graph.output, *model.graph.input)] or [""])
    begins = {f"other/{value.name}" for value in other.graph.input}
    for node in other.graph.node:
        node.input[:] = [source if name in begins else name for name in node.input]
    model.graph.node.extend(other.graph.node)
    model.graph.initializer.extend(other.graph.initializer)
    if rng.random() < 0.8 and other.graph.output and model.graph.output:
        end = other.graph.output[0]
        model.graph.output[0].CopyFrom(end)
        model.graph.output[0].name = f"other/{end.name}"
    return model


def names_of(model: ModelProto) -> Iterator[str]:
    for node in model.graph.node:
        yield from (*node.input, *node.output)


def scramble_names(rng: Rng, data: bytes, model: ModelProto) -> bytes:
    """Bytes of a name are none of UTF-8's any more: what protobuf's setters refuse and its parser takes."""
    names = {name if isinstance(name, bytes) else name.encode() for name in names_of(model)}
    name = rng.choice(sorted(names) or [b"a"]) or b"a"
    return data.replace(name, bytes([rng.choice((0xD0, 0xFF, 0x80))]) + name[1:], rng.choice((1, -1)))
