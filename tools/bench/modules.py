"""Five networks as torchvision has them, as plain modules with seeded weights.

Every rectifier is an `nn.ReLU` module of its own, for Captum sees no others.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

Pairs = tuple[int, ...]


def build(name: str) -> nn.Module:
    """The network, in evaluation mode; the same weights each time."""
    torch.manual_seed(0)
    network = NETWORKS[name]().eval()
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.normal_(layer.bias, std=0.05)
        elif isinstance(layer, nn.BatchNorm2d):
            for scale in (layer.weight, layer.running_var):
                nn.init.uniform_(scale, 0.5, 1.5)
            for shift in (layer.bias, layer.running_mean):
                nn.init.normal_(shift, std=0.1)
    return network.requires_grad_(False)


def export(name: str, batch: int, size: int, file: Path) -> None:
    torch.onnx.export(
        build(name),
        (torch.zeros(batch, 3, size, size),),
        file,
        dynamo=False,
        opset_version=17,
        input_names=["x"],
        output_names=["y"],
    )


def _conv(into: int, out: int, kernel: int, stride: int = 1, padding: int = 0) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(into, out, kernel, stride, padding), nn.ReLU())


def _normalised(into: int, out: int, kernel: int, stride: int = 1, padding: int = 0) -> nn.Sequential:
    conv = nn.Conv2d(into, out, kernel, stride, padding, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out), nn.ReLU())


def _head(into: int, width: int) -> tuple[nn.Module, ...]:
    """Three fully connected layers; dropout does nothing in evaluation mode."""
    linear = nn.Linear(into, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1000)
    return nn.Flatten(), *linear


def alexnet() -> nn.Module:
    return nn.Sequential(
        _conv(3, 64, 11, 4, 2),
        nn.MaxPool2d(3, 2),
        _conv(64, 192, 5, padding=2),
        nn.MaxPool2d(3, 2),
        _conv(192, 384, 3, padding=1),
        _conv(384, 256, 3, padding=1),
        _conv(256, 256, 3, padding=1),
        nn.MaxPool2d(3, 2),
        *_head(256 * 6 * 6, 4096),
    )


def vgg16() -> nn.Module:
    layers, into = list[nn.Module](), 3
    for out, times in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(times):
            layers.append(_conv(into, out, 3, padding=1))
            into = out
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, *_head(512 * 7 * 7, 4096))


class Fire(nn.Module):
    def __init__(self, into: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = _conv(into, squeeze, 1)
        self.expand1 = _conv(squeeze, expand, 1)
        self.expand3 = _conv(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze(x)
        return torch.cat([self.expand1(x), self.expand3(x)], 1)


def squeezenet() -> nn.Module:
    return nn.Sequential(
        _conv(3, 64, 3, 2),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        *(Fire(64, 16, 64), Fire(128, 16, 64)),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        *(Fire(128, 32, 128), Fire(256, 32, 128)),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        *(Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256)),
        _conv(512, 1000, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


class Inception(nn.Module):
    def __init__(self, into: int, one: int, three: Pairs, five: Pairs, pool: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [
                _normalised(into, one, 1),
                nn.Sequential(_normalised(into, three[0], 1), _normalised(*three, 3, padding=1)),
                nn.Sequential(_normalised(into, five[0], 1), _normalised(*five, 3, padding=1)),
                nn.Sequential(nn.MaxPool2d(3, 1, 1, ceil_mode=True), _normalised(into, pool, 1)),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


def googlenet() -> nn.Module:
    return nn.Sequential(
        _normalised(3, 64, 7, 2, 3),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        _normalised(64, 64, 1),
        _normalised(64, 192, 3, padding=1),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        Inception(192, 64, (96, 128), (16, 32), 32),
        Inception(256, 128, (128, 192), (32, 96), 64),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        Inception(480, 192, (96, 208), (16, 48), 64),
        Inception(512, 160, (112, 224), (24, 64), 64),
        Inception(512, 128, (128, 256), (24, 64), 64),
        Inception(512, 112, (144, 288), (32, 64), 64),
        Inception(528, 256, (160, 320), (32, 128), 128),
        nn.MaxPool2d(2, 2, ceil_mode=True),
        Inception(832, 256, (160, 320), (32, 128), 128),
        Inception(832, 384, (192, 384), (48, 128), 128),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(1024, 1000),
    )


class Bottleneck(nn.Module):
    def __init__(self, into: int, width: int, stride: int) -> None:
        super().__init__()
        out = 4 * width
        self.deep = nn.Sequential(
            _normalised(into, width, 1),
            _normalised(width, width, 3, stride, 1),
            *_normalised(width, out, 1)[:2],
        )
        same = into == out and stride == 1
        self.shortcut = nn.Identity() if same else _normalised(into, out, 1, stride)[:2]
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.deep(x) + self.shortcut(x))


def resnet50() -> nn.Module:
    blocks, into = list[nn.Module](), 64
    for width, times, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for i in range(times):
            blocks.append(Bottleneck(into, width, stride if i == 0 else 1))
            into = 4 * width
    return nn.Sequential(
        _normalised(3, 64, 7, 2, 3),
        nn.MaxPool2d(3, 2, 1),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(into, 1000),
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    network.__name__: network for network in (vgg16, googlenet, resnet50, alexnet, squeezenet)
}
