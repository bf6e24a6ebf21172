"""The nine architectures that the onnx package ships, at their native opset 9 and IR 3, re-weighted."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import revgraph
from revgraph import reference

pytestmark = pytest.mark.heavy

FOLDER = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
MODELS = sorted(path.stem for path in FOLDER.glob("light_*.onnx"))

# In float32 a few masks and switches of a deep network flip (see test_real_networks.py), with random weights
# more than with trained ones.
COSINE = 0.999


def reweighted(name: str, dynamic: bool) -> onnx.ModelProto:
    """The model with seeded weights in place of ConstantOfShape, with which every output would tie."""
    model, rng = onnx.load(FOLDER / f"{name}.onnx"), np.random.default_rng(0)
    shapes = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    readers = {tensor: (node.op_type, i) for node in model.graph.node for i, tensor in enumerate(node.input)}
    kept = []
    for node in model.graph.node:
        if node.op_type != "ConstantOfShape":
            kept.append(node)
            continue
        values = _weights(rng, shapes[node.input[0]].tolist(), readers.get(node.output[0]))
        model.graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
        described = helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, values.shape)
        model.graph.input.append(described)
    del model.graph.node[:]
    model.graph.node.extend(kept)
    if dynamic:
        _free_batch(model, shapes)
    return model


def _weights(rng: np.random.Generator, shape: list[int], reader: tuple[str, int] | None) -> np.ndarray:
    if len(shape) > 1:
        values = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    elif reader in (("BatchNormalization", 1), ("BatchNormalization", 4), ("Unsqueeze", 0)):
        values = rng.uniform(0.5, 1.5, shape)  # scales and variances
    else:
        values = rng.standard_normal(shape) * 0.1
    return values.astype(np.float32)


def _free_batch(model: onnx.ModelProto, shapes: dict[str, np.ndarray]) -> None:
    data = next(
        value
        for value in model.graph.input
        if len(value.type.tensor_type.shape.dim) == 4 and "data" in value.name
    )
    for value in (data, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    for node in model.graph.node:
        if node.op_type == "Reshape" and (target := shapes.get(node.input[1])) is not None and target[0] == 1:
            tensor = next(t for t in model.graph.initializer if t.name == node.input[1])
            tensor.CopyFrom(numpy_helper.from_array(np.array([0, *target[1:]]), tensor.name))


def by_reference(name: str, x: np.ndarray) -> tuple[str, np.ndarray, dict[str, np.ndarray]]:
    """y's name, p at its largest, and the x_hat of each variant, in float64."""
    source = reweighted(name, dynamic=False)
    initializers = {tensor.name for tensor in source.graph.initializer}
    to = next(value.name for value in source.graph.input if value.name not in initializers)
    at = revgraph.compile(source, variant="identity").at
    tensors = reference.forward(source, {to: x})
    p = np.zeros(tensors[at].shape, np.float32)
    p.reshape(-1)[tensors[at].argmax()] = 1
    each = {
        variant: reference.reverse(source, tensors, variant=variant, at=at, to=to, p=p)[to]
        for variant in revgraph.VARIANTS
    }
    return at, p, each


@pytest.mark.parametrize("name", MODELS)
def test_all_eight_agree_with_float64(name: str) -> None:
    """Alone where the batch is 1, and in a batch of two where it is free."""
    x = np.random.default_rng(1).standard_normal((1, 3, 224, 224)).astype(np.float32)
    at, p, expected = by_reference(name, x)
    alone = {}
    for dynamic in False, True:
        source = reweighted(name, dynamic)
        images = np.concatenate([x, x[..., ::-1]]) if dynamic else x
        for variant in revgraph.VARIANTS:
            session = revgraph.Session(revgraph.compile(source, variant=variant, at=at))
            x_hat = session.reverse(session.forward(images), np.concatenate([p] * len(images)))[:1]
            cosine = cosine_of(x_hat.astype(np.float64), expected[variant])
            print(f"{name} {variant}, {len(images)}: 1 - cosine = {1 - cosine:.1e}")
            assert cosine > COSINE, (name, variant, dynamic)
            first = alone.setdefault(variant, x_hat)
            np.testing.assert_allclose(x_hat, first, atol=1e-3 * np.abs(first).max())


def cosine_of(a: np.ndarray, b: np.ndarray) -> float:
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    return float((a * b).sum() / norms) if norms else float(a.any() == b.any())
