"""What Triton does with a model repository, restated: how it reads configs, loads files and joins models.

The rules are those of the ONNX Runtime backend, which validates inputs and outputs, and of ensembles.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

config_pb2: Any = pytest.importorskip(
    "tritonclient.grpc.model_config_pb2", reason='no Triton schema: pip install "tritonclient[grpc]"'
)
text_format: Any = pytest.importorskip("google.protobuf.text_format")

TYPES = {
    "tensor(float)": "TYPE_FP32",
    "tensor(float16)": "TYPE_FP16",
    "tensor(double)": "TYPE_FP64",
    "tensor(bool)": "TYPE_BOOL",
    "tensor(int64)": "TYPE_INT64",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(int32)": "TYPE_INT32",
}


class Server:
    """What Triton does with a repository, as far as shapes, types and wiring go."""

    def __init__(self, folder: Path) -> None:
        self.configs = {}
        for path in sorted(folder.glob("*/config.pbtxt")):
            config = text_format.Parse(path.read_text(encoding="utf-8"), config_pb2.ModelConfig())
            assert config.name == path.parent.name
            assert (path.parent / "1").is_dir()
            self.configs[config.name] = config
        self.sessions = {
            name: onnxruntime.InferenceSession(folder / name / "1" / "model.onnx")
            for name, config in self.configs.items()
            if config.backend == "onnxruntime"
        }
        for name, session in self.sessions.items():
            self._load(self.configs[name], session)
        for config in self.configs.values():
            if config.platform == "ensemble":
                self._wire(config)

    def _load(self, config: Any, session: Any) -> None:
        for declared, found in (config.input, session.get_inputs()), (config.output, session.get_outputs()):
            assert {d.name for d in declared} == {f.name for f in found}
            shapes = {f.name: (f.type, f.shape) for f in found}
            for tensor in declared:
                kind, shape = shapes[tensor.name]
                assert config_pb2.DataType.Name(tensor.data_type) == TYPES[kind]
                assert len(tensor.dims) > 0
                dims = list(tensor.reshape.shape) if tensor.HasField("reshape") else list(tensor.dims)
                if config.max_batch_size:
                    assert not isinstance(shape[0], int), "the backend wants the first axis free to batch"
                    shape = shape[1:]
                assert len(dims) == len(shape)
                for dim, own in zip(dims, shape, strict=True):
                    assert dim == (own if isinstance(own, int) else -1)

    def _wire(self, ensemble: Any) -> None:
        assert not ensemble.instance_group
        assert not ensemble.HasField("dynamic_batching")
        tensors = {t.name: (t.data_type, list(t.dims)) for t in ensemble.input}
        for step in ensemble.ensemble_scheduling.step:
            config = self.configs[step.model_name]
            assert ensemble.max_batch_size <= config.max_batch_size
            assert set(step.input_map) == {t.name for t in config.input}
            for t in config.input:
                assert tensors[step.input_map[t.name]] == (t.data_type, list(t.dims)), t.name
            tensors |= {
                step.output_map[t.name]: (t.data_type, list(t.dims))
                for t in config.output
                if t.name in step.output_map
            }
        assert {t.name: (t.data_type, list(t.dims)) for t in ensemble.output}.items() <= tensors.items()

    def infer(self, name: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """One request of one client."""
        config = self.configs[name]
        self._check(config.input, inputs, config.max_batch_size)
        if config.platform == "ensemble":
            known = dict(inputs)
            for step in config.ensemble_scheduling.step:
                feeds = {key: known[value] for key, value in step.input_map.items()}
                found = self.infer(step.model_name, **feeds)
                known |= {
                    step.output_map[key]: value for key, value in found.items() if key in step.output_map
                }
            return {t.name: known[t.name] for t in config.output}
        dropped = {t.name for t in config.input if t.HasField("reshape")}
        feeds = {key: value.reshape(len(value)) if key in dropped else value for key, value in inputs.items()}
        names = [t.name for t in config.output]
        outputs = dict(zip(names, self.sessions[name].run(names, feeds), strict=True))
        for t in config.output:
            if t.HasField("reshape"):
                outputs[t.name] = outputs[t.name].reshape(-1, 1)
        self._check(config.output, outputs, config.max_batch_size)
        return outputs

    def _check(self, declared: Any, values: dict[str, np.ndarray], batch: int) -> None:
        assert set(values) == {t.name for t in declared}
        rows = {len(value) for value in values.values()}
        if batch:
            assert len(rows) == 1
            assert rows.pop() <= batch
        for t in declared:
            shape = values[t.name].shape[1:] if batch else values[t.name].shape
            assert len(shape) == len(t.dims)
            assert all(dim in (-1, size) for dim, size in zip(t.dims, shape, strict=True))
