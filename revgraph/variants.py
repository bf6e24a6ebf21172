"""The eight architectures of Fig. 3, as tables from operator to rule."""

from collections.abc import Mapping

from revgraph.rules import affine, average, maxpool, norm, relu, wiring
from revgraph.rules.rule import Rule

Variant = Mapping[str, Rule]

# What all eight share: linear layers, which have one reversal.
LINEAR: Variant = {
    "Add": wiring.add,
    "AveragePool": average.average,
    "BatchNormalization": affine.batch_norm,
    "Concat": wiring.concat,
    "Conv": affine.conv,
    "Dropout": wiring.dropout,
    "Flatten": wiring.reshape,
    "Gemm": affine.gemm,
    "GlobalAveragePool": average.global_average,
    "Identity": wiring.identity,
    "MatMul": affine.matmul,
    "Reshape": wiring.reshape,
    "Sum": wiring.add,
    "Transpose": wiring.transpose,
}

# fmt: off
VARIANTS: Mapping[str, Variant] = {
    "identity":         {"Relu": relu.identity,     "MaxPool": maxpool.switches, "LRN": norm.identity},
    "deconvnet":        {"Relu": relu.rectify,      "MaxPool": maxpool.switches, "LRN": norm.identity},
    "salinet":          {"Relu": relu.mask,         "MaxPool": maxpool.switches, "LRN": norm.bp},
    "desalinet":        {"Relu": relu.mask_rectify, "MaxPool": maxpool.switches, "LRN": norm.identity},
    "identity-centre":  {"Relu": relu.identity,     "MaxPool": maxpool.centre,   "LRN": norm.identity},
    "deconvnet-centre": {"Relu": relu.rectify,      "MaxPool": maxpool.centre,   "LRN": norm.identity},
    "salinet-centre":   {"Relu": relu.mask,         "MaxPool": maxpool.centre,   "LRN": norm.identity},
    "desalinet-centre": {"Relu": relu.mask_rectify, "MaxPool": maxpool.centre,   "LRN": norm.identity},
}
# fmt: on

TITLES: Mapping[str, str] = {
    "identity": "back-propagation without ReLU",
    "deconvnet": "DeConvNet",
    "salinet": "SaliNet, gradient saliency",
    "desalinet": "DeSaliNet, guided backpropagation",
    "identity-centre": "no bottleneck at all",
    "deconvnet-centre": "DeConvNet without switches",
    "salinet-centre": "SaliNet without switches",
    "desalinet-centre": "DeSaliNet without switches",
}

LRN: Mapping[str, Rule] = {"identity": norm.identity, "bp": norm.bp}
"""The third axis: Sect. 3.1 sets it apart from the eight, and footnote 5 changes it again."""


def rules(variant: str, lrn: str | None = None) -> Variant:
    """The rule of every operator.

    Args:
        variant: A name in VARIANTS.
        lrn: A name in LRN; None for the variant's own.
    """
    return {**LINEAR, **VARIANTS[variant], **({} if lrn is None else {"LRN": LRN[lrn]})}


def lrn_of(variant: str) -> str:
    """The name in LRN of the variant's own choice."""
    return next(name for name, rule in LRN.items() if rule is VARIANTS[variant]["LRN"])
