"""JAX: the networks as Flax NNX modules, exported by jax2onnx; they are fed (N, H, W, C).

jax2onnx takes the arguments of pooling by keyword only.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jax2onnx import to_onnx
from record import REFERENCES, record
from weights import HEIGHT, LRN, NORMALISED, WIDTH, Array, weights

Function = Callable[[jax.Array], jax.Array]

# ----- The references -----


def passed(function: Function, reverse: Function) -> Function:
    """y of a function, and x_hat of another."""
    both = jax.custom_vjp(function)
    both.defvjp(lambda x: (function(x), None), lambda _, y_hat: (reverse(y_hat),))
    return both


def rectifier(function: Function, how: str) -> Function:
    """A function of the same y, whose x_hat is DeConvNet's (`deconv`) or DeSaliNet's (`guided`)."""
    before = passed(lambda x: x, nnx.relu)
    rules = {
        "gradient": function,
        "guided": lambda x: function(before(x)),
        "deconv": passed(function, nnx.relu),
    }
    return rules[how]


# ----- The networks -----


def normalise(x: jax.Array) -> jax.Array:
    """LRN, which neither JAX nor Flax has."""
    window = (1, 1, 1, LRN["size"])
    total = lax.reduce_window(x * x, 0.0, lax.add, window, (1, 1, 1, 1), "SAME")
    return x / (LRN["k"] + LRN["alpha"] / LRN["size"] * total) ** LRN["beta"]


class Layers(nnx.Module):
    """A network of given weights.

    Args:
        how: `gradient`, or how rectifiers and LRN are reversed instead.
    """

    def __init__(self, how: str) -> None:
        self.network = type(self).__name__.lower()
        self.relu, self.relu6 = rectifier(nnx.relu, how), rectifier(nnx.relu6, how)
        self.silu = rectifier(nnx.silu, how)
        self.lrn = normalise if how == "gradient" else passed(normalise, lambda y_hat: y_hat)

    def conv(self, name: str, stride: int = 1, padding: int = 0, groups: int = 1) -> nnx.Module:
        """The convolution of that name, and the BatchNorm that follows it if one does."""
        arrays, normalised = weights(self.network), name in NORMALISED.get(self.network, ())
        out, into, *kernel = arrays[f"{name}.weight"].shape
        layer = nnx.Conv(
            into * groups,
            out,
            kernel,
            stride,
            padding=padding,
            feature_group_count=groups,
            use_bias=not normalised,
            rngs=nnx.Rngs(0),
        )
        layer.kernel.value = jnp.array(arrays[f"{name}.weight"].transpose(2, 3, 1, 0))
        if not normalised:
            layer.bias.value = jnp.array(arrays[f"{name}.bias"])
            return layer
        norm = nnx.BatchNorm(out, use_running_average=True, epsilon=1e-5, rngs=nnx.Rngs(0))
        for mine, theirs in {"scale": "scale", "bias": "shift", "mean": "mean", "var": "variance"}.items():
            getattr(norm, mine).value = jnp.array(arrays[f"{name}.{theirs}"])
        return nnx.Sequential(layer, norm)

    def linear(self, name: str) -> nnx.Linear:
        arrays = weights(self.network)
        kernel = arrays[f"{name}.weight"].transpose(2, 3, 1, 0).reshape(-1, len(arrays[f"{name}.weight"]))
        layer = nnx.Linear(*kernel.shape, rngs=nnx.Rngs(0))
        layer.kernel.value, layer.bias.value = jnp.array(kernel), jnp.array(arrays[f"{name}.bias"])
        return layer


class Plain(Layers):
    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.conv1, self.conv2 = self.conv("conv1", padding=2), self.conv("conv2")
        self.fc1, self.fc2 = self.linear("fc1"), self.linear("fc2")

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.max_pool(self.relu(self.conv1(x)), window_shape=(3, 3), strides=(2, 2), padding="SAME")
        x = nnx.max_pool(self.relu(self.conv2(x)), window_shape=(2, 2), strides=(2, 2))
        return self.fc2(self.relu(self.fc1(x.reshape(x.shape[0], -1))))


class Lrn(Layers):
    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.conv1, self.conv2 = self.conv("conv1", stride=2, padding=1), self.conv("conv2", padding=1)
        self.fc = self.linear("fc")

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.max_pool(self.lrn(self.relu(self.conv1(x))), window_shape=(3, 3), strides=(2, 2))
        x = self.lrn(self.relu(self.conv2(x)))
        return self.fc(x.reshape(x.shape[0], -1))


class Residual(Layers):
    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.stem = self.conv("stem", padding=1)
        self.conv1a, self.conv1b = self.conv("conv1a", padding=1), self.conv("conv1b", padding=1)
        self.conv2a = self.conv("conv2a", stride=2, padding=1)
        self.conv2b = self.conv("conv2b", padding=1)
        self.shortcut = self.conv("shortcut", stride=2)
        self.fc = self.linear("fc")

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.max_pool(self.relu(self.stem(x)), window_shape=(2, 2), strides=(2, 2))
        x = self.relu(self.conv1b(self.relu(self.conv1a(x))) + x)
        x = self.relu(self.conv2b(self.relu(self.conv2a(x))) + self.shortcut(x))
        return self.fc(x.mean((1, 2)))


class Inception(Layers):
    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.stem = self.conv("stem", stride=2, padding=1)
        self.one = self.conv("one")
        self.three_reduce, self.three = self.conv("three_reduce"), self.conv("three", padding=1)
        self.five_reduce, self.five = self.conv("five_reduce"), self.conv("five", padding=2)
        self.max_project, self.average_project = self.conv("max_project"), self.conv("average_project")
        self.last = self.conv("last")
        self.fc = self.linear("fc")

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.relu(self.stem(x))
        same = {"window_shape": (3, 3), "strides": (1, 1), "padding": "SAME"}
        branches = (
            self.one(x),
            self.three(self.relu(self.three_reduce(x))),
            self.five(self.relu(self.five_reduce(x))),
            self.max_project(nnx.max_pool(x, **same)),
            self.average_project(nnx.avg_pool(x, **same, count_include_pad=False)),
        )
        x = nnx.avg_pool(self.relu(jnp.concatenate(branches, -1)), window_shape=(2, 2), strides=(2, 2))
        x = self.relu(self.last(x))
        return self.fc(x.mean((1, 2)))


class Depthwise(Layers):
    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.stem = self.conv("stem", stride=2, padding=1)
        self.depthwise1 = self.conv("depthwise1", padding=1, groups=8)
        self.project1 = self.conv("project1")
        self.expand2 = self.conv("expand2")
        self.depthwise2 = self.conv("depthwise2", stride=2, padding=1, groups=16)
        self.project2 = self.conv("project2")
        self.fc = self.linear("fc")

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.relu6(self.stem(x))
        x = self.project1(self.relu6(self.depthwise1(x))) + x
        x = self.project2(self.relu6(self.depthwise2(self.relu6(self.expand2(x)))))
        return self.fc(x.mean((1, 2)))


class Excitation(Layers):
    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.stem = self.conv("stem", stride=2, padding=1)
        self.depthwise = self.conv("depthwise", padding=1, groups=8)
        self.squeeze, self.excite = self.conv("squeeze"), self.conv("excite")
        self.project, self.head = self.conv("project"), self.conv("head")
        self.fc = self.linear("fc")

    def __call__(self, x: jax.Array) -> jax.Array:
        shortcut = x = self.silu(self.stem(x))
        x = self.silu(self.depthwise(x))
        gate = self.excite(self.silu(self.squeeze(x.mean((1, 2), keepdims=True))))
        x = x * nnx.sigmoid(gate)
        x = self.silu(self.head(self.project(x) + shortcut))
        return self.fc(x.mean((1, 2)))


NETWORKS: Mapping[str, type[Layers]] = {kind.__name__.lower(): kind for kind in Layers.__subclasses__()}


def export(network: str, file: Path) -> None:
    model = NETWORKS[network]("gradient")
    to_onnx(model, [("B", HEIGHT, WIDTH, 3)], return_mode="file", output_path=str(file))


def references(network: str, x: Array, p: Array) -> dict[str, np.ndarray]:
    results = {}
    for how in REFERENCES:
        y, reverse = jax.vjp(NETWORKS[network](how), jnp.array(x))
        (x_hat,) = reverse(jnp.array(p))
        results |= {"y": y, how: x_hat}
    return {name: np.asarray(array) for name, array in results.items()}


if __name__ == "__main__":
    packages = ["jax", "jaxlib", "flax", "jax2onnx", "onnx"]
    record("jax2onnx", "JAX (Flax NNX)", packages, export, references, layout="NHWC")
