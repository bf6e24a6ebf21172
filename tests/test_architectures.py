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


@pytest.mark.parametrize("dynamic", [False, True], ids=["static batch", "dynamic batch"])
@pytest.mark.parametrize("name", MODELS)
def test_all_eight_agree_with_float64(name: str, dynamic: bool) -> None:
    source = reweighted(name, dynamic)
    x = np.random.default_rng(1).standard_normal((1, 3, 224, 224)).astype(np.float32)
    initializers = {tensor.name for tensor in source.graph.initializer}
    to = next(value.name for value in source.graph.input if value.name not in initializers)
    tensors = reference.forward(source, {to: x})
    # The dynamic ones differ in their shapes alone: one variant of each kind of tap is enough.
    for variant in ("salinet", "desalinet-centre") if dynamic else revgraph.VARIANTS:
        pair = revgraph.compile(source, variant=variant)
        session = revgraph.Session(pair)
        trace = session.forward(x)
        p = np.zeros_like(trace.y)
        p.reshape(-1)[trace.y.argmax()] = 1
        x_hat = session.reverse(trace, p).astype(np.float64)
        expected = reference.reverse(source, tensors, variant=variant, at=pair.at, to=to, p=p)[to]
        norms = np.linalg.norm(x_hat) * np.linalg.norm(expected)
        cosine = (x_hat * expected).sum() / norms if norms else float(x_hat.any() == expected.any())
        print(f"{name} {variant}: 1 - cosine = {1 - cosine:.1e}")
        assert cosine > COSINE, (name, variant)
        if dynamic:
            both = session.forward(np.concatenate([x, x[..., ::-1]]))
            two = session.reverse(both, np.concatenate([p, p]))
            np.testing.assert_allclose(two[:1], x_hat, atol=1e-3 * np.abs(x_hat).max())
