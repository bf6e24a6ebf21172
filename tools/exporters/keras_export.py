"""TensorFlow: the networks in Keras's functional style, exported by tf2onnx; they are fed (N, H, W, C)."""

from collections.abc import Callable, Mapping
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
import tf2onnx
from keras import layers
from record import REFERENCES, record
from weights import HEIGHT, LRN, NORMALISED, WIDTH, Array, weights

Tensor = keras.KerasTensor | tf.Tensor
Layer = Callable[[Tensor], Tensor]

# ----- The references -----


def passed(function: Layer, reverse: Layer) -> Layer:
    """y of a function, and x_hat of another."""

    @tf.custom_gradient
    def both(x: tf.Tensor) -> tuple[tf.Tensor, Layer]:
        return function(x), reverse

    return both


def rectifier(function: Layer, how: str) -> Layer:
    """A function of the same y, whose x_hat is DeConvNet's (`deconv`) or DeSaliNet's (`guided`)."""
    before = passed(tf.identity, tf.nn.relu)
    rules = {
        "gradient": function,
        "guided": lambda x: function(before(x)),
        "deconv": passed(function, tf.nn.relu),
    }
    return rules[how]


# ----- The networks -----


class Layers:
    """The layers of one network, which set their own weights as soon as they are built.

    Args:
        network: Its name.
        how: `gradient`, or how rectifiers and LRN are reversed instead.
    """

    def __init__(self, network: str, how: str) -> None:
        self._arrays, self._normalised, self._how = weights(network), NORMALISED.get(network, ()), how

    def conv(self, name: str, x: Tensor, stride: int = 1, padding: str = "same") -> Tensor:
        """A convolution, and the BatchNormalization that follows it if one does."""
        kernel = self._arrays[f"{name}.weight"]
        if stride > 1 and kernel.shape[2] > 1:
            # "same" would pad an even image at its bottom and right only; Keras's own ResNet does as here.
            x, padding = layers.ZeroPadding2D(1)(x), "valid"
        normalised = name in self._normalised
        layer = layers.Conv2D(
            len(kernel), kernel.shape[2:], stride, padding, use_bias=not normalised, name=name
        )
        x = layer(x)
        if not normalised:
            layer.set_weights([kernel.transpose(2, 3, 1, 0), self._arrays[f"{name}.bias"]])
            return x
        layer.set_weights([kernel.transpose(2, 3, 1, 0)])
        norm = layers.BatchNormalization(epsilon=1e-5, name=f"{name}_bn")
        x = norm(x)
        norm.set_weights([self._arrays[f"{name}.{key}"] for key in ("scale", "shift", "mean", "variance")])
        return x

    def depthwise(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        kernel, padding = self._arrays[f"{name}.weight"], "same"
        if stride > 1:
            x, padding = layers.ZeroPadding2D(1)(x), "valid"
        layer = layers.DepthwiseConv2D(kernel.shape[2:], stride, padding, name=name)
        x = layer(x)
        layer.set_weights([kernel.transpose(2, 3, 0, 1), self._arrays[f"{name}.bias"]])
        return x

    def dense(self, name: str, x: Tensor) -> Tensor:
        kernel = self._arrays[f"{name}.weight"]
        layer = layers.Dense(len(kernel), name=name)
        x = layer(x)
        layer.set_weights(
            [kernel.transpose(2, 3, 1, 0).reshape(-1, len(kernel)), self._arrays[f"{name}.bias"]]
        )
        return x

    def relu(self, x: Tensor) -> Tensor:
        return layers.Activation(rectifier(keras.activations.relu, self._how))(x)

    def relu6(self, x: Tensor) -> Tensor:
        return layers.Activation(rectifier(keras.activations.relu6, self._how))(x)

    def silu(self, x: Tensor) -> Tensor:
        return layers.Activation(rectifier(keras.activations.silu, self._how))(x)

    def lrn(self, x: Tensor) -> Tensor:
        """TensorFlow's own, for which Keras has no layer; its alpha multiplies the sum, not the mean."""

        def normalise(x: tf.Tensor) -> tf.Tensor:
            return tf.nn.local_response_normalization(
                x, LRN["size"] // 2, LRN["k"], LRN["alpha"] / LRN["size"], LRN["beta"]
            )

        as_it_is = self._how == "gradient"
        return layers.Lambda(normalise if as_it_is else passed(normalise, tf.identity))(x)


def plain(net: Layers, x: Tensor) -> Tensor:
    x = net.relu(net.conv("conv1", x))
    x = layers.MaxPooling2D(3, 2, padding="same")(x)
    x = net.relu(net.conv("conv2", x, padding="valid"))
    x = layers.MaxPooling2D(2)(x)
    x = net.relu(net.dense("fc1", layers.Flatten()(x)))
    return net.dense("fc2", x)


def lrn(net: Layers, x: Tensor) -> Tensor:
    x = net.lrn(net.relu(net.conv("conv1", x, stride=2)))
    x = layers.MaxPooling2D(3, 2)(x)
    x = net.lrn(net.relu(net.conv("conv2", x)))
    return net.dense("fc", layers.Flatten()(x))


def residual(net: Layers, x: Tensor) -> Tensor:
    x = layers.MaxPooling2D(2)(net.relu(net.conv("stem", x)))
    inner = net.conv("conv1b", net.relu(net.conv("conv1a", x)))
    x = net.relu(layers.Add()([inner, x]))
    inner = net.conv("conv2b", net.relu(net.conv("conv2a", x, stride=2)))
    x = net.relu(layers.Add()([inner, net.conv("shortcut", x, stride=2)]))
    return net.dense("fc", layers.GlobalAveragePooling2D()(x))


def inception(net: Layers, x: Tensor) -> Tensor:
    x = net.relu(net.conv("stem", x, stride=2))
    branches = [
        net.conv("one", x),
        net.conv("three", net.relu(net.conv("three_reduce", x))),
        net.conv("five", net.relu(net.conv("five_reduce", x))),
        net.conv("max_project", layers.MaxPooling2D(3, 1, padding="same")(x)),
        net.conv("average_project", layers.AveragePooling2D(3, 1, padding="same")(x)),
    ]
    x = layers.AveragePooling2D(2)(net.relu(layers.Concatenate()(branches)))
    x = net.relu(net.conv("last", x))
    return net.dense("fc", layers.GlobalAveragePooling2D()(x))


def depthwise(net: Layers, x: Tensor) -> Tensor:
    x = net.relu6(net.conv("stem", x, stride=2))
    inner = net.conv("project1", net.relu6(net.depthwise("depthwise1", x)))
    x = net.relu6(net.conv("expand2", layers.Add()([inner, x])))
    x = net.conv("project2", net.relu6(net.depthwise("depthwise2", x, stride=2)))
    return net.dense("fc", layers.GlobalAveragePooling2D()(x))


def excitation(net: Layers, x: Tensor) -> Tensor:
    shortcut = x = net.silu(net.conv("stem", x, stride=2))
    x = net.silu(net.depthwise("depthwise", x))
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = net.conv("excite", net.silu(net.conv("squeeze", gate)))
    x = layers.Multiply()([x, layers.Activation("sigmoid")(gate)])
    x = net.silu(net.conv("head", layers.Add()([net.conv("project", x), shortcut])))
    return net.dense("fc", layers.GlobalAveragePooling2D()(x))


NETWORKS: Mapping[str, Callable[[Layers, Tensor], Tensor]] = {
    f.__name__: f for f in (plain, lrn, residual, inception, depthwise, excitation)
}


def build(network: str, how: str = "gradient") -> keras.Model:
    x = keras.Input((HEIGHT, WIDTH, 3), name="x")
    return keras.Model(x, NETWORKS[network](Layers(network, how), x), name=network)


def export(network: str, file: Path) -> None:
    signature = [tf.TensorSpec((None, HEIGHT, WIDTH, 3), tf.float32, name="x")]
    tf2onnx.convert.from_keras(build(network), signature, output_path=str(file))


def references(network: str, x: Array, p: Array) -> dict[str, np.ndarray]:
    results = {}
    for how in REFERENCES:
        model, image = build(network, how), tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(image)
            y = model(image, training=False)
        results |= {"y": y.numpy(), how: tape.gradient(y, image, tf.constant(p)).numpy()}
    return results


if __name__ == "__main__":
    packages = ["tensorflow-cpu", "keras", "tf2onnx", "onnx"]
    record("tf2onnx", "TensorFlow (Keras)", packages, export, references, layout="NHWC")
