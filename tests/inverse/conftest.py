"""The modules of tools/inverse, which lie beside its commands, and a small network for them."""

import sys
from pathlib import Path

import networks
import numpy as np
import onnx
import pytest

TOOLS = Path(__file__).parents[2] / "tools" / "inverse"

sys.path.insert(0, str(TOOLS))


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures -> conv1 relu1 pool1 (overlapping) conv2 relu2 pool2 (disjoint) conv3 relu3, 6 channels.

    Windows differ in what they pad at either end, in strides and dilations, and channels in groups.
    """
    rng = np.random.default_rng(0)
    weights = {
        "w1": networks.he(rng, 4, 3, 3, 3),
        "w2": networks.he(rng, 8, 2, 3, 3),
        "w3": networks.he(rng, 6, 8, 3, 3),
        "b2": np.full(8, 0.1, np.float32),
    }
    nodes = [
        networks.node("Conv", "x w1", "conv1", pads=[2, 0, 1, 1]),
        networks.node("Relu", "conv1", "relu1"),
        networks.node("MaxPool", "relu1", "pool1", kernel_shape=[3, 3], strides=[2, 2], pads=[0, 1, 1, 0]),
        networks.node("Conv", "pool1 w2 b2", "conv2", pads=[1] * 4, group=2),
        networks.node("Relu", "conv2", "relu2"),
        networks.node("MaxPool", "relu2", "pool2", kernel_shape=[2, 2], strides=[2, 2]),
        networks.node("Conv", "pool2 w3", "conv3", pads=[2] * 4, dilations=[2, 2]),
        networks.node("Relu", "conv3", "relu3"),
    ]
    path = tmp_path_factory.mktemp("network") / "small.onnx"
    onnx.save(networks.model(nodes, ["N", 3, 32, 32], weights), path)
    return path
