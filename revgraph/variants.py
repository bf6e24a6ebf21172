"""The eight architectures of Fig. 3, as tables from operator to rule."""

from collections.abc import Mapping

from revgraph.rules import activation, affine, average, crop, maxpool, norm, product, resize, wiring
from revgraph.rules.rule import Rule

Variant = Mapping[str, Rule]

# What all eight share: linear layers, which have one reversal, and layers that are BP-reversed everywhere.
SHARED: Variant = {
    **activation.SQUASH,
    "Add": wiring.add,
    "AveragePool": average.average,
    "BatchNormalization": affine.batch_norm,
    "Cast": wiring.cast,
    "Concat": wiring.concat,
    "Conv": affine.conv,
    "ConvTranspose": affine.conv_transpose,
    "DepthToSpace": wiring.depth_to_space,
    "DequantizeLinear": wiring.identity,
    "Div": product.div,
    "Dropout": wiring.dropout,
    "Expand": wiring.expand,
    "Flatten": wiring.reshape,
    "Gather": crop.gather,
    "Gemm": affine.gemm,
    "GlobalAveragePool": average.global_average,
    "GroupNormalization": norm.group_norm,
    "Identity": wiring.identity,
    "InstanceNormalization": norm.instance_norm,
    "LayerNormalization": norm.layer_norm,
    "MatMul": affine.matmul,
    "Max": maxpool.chosen,
    "Min": maxpool.chosen,
    "Mul": product.mul,
    "Neg": product.neg,
    "Pad": crop.pad,
    "QuantizeLinear": wiring.identity,
    "ReduceL2": norm.l2,
    "ReduceMean": average.reduce,
    "ReduceSum": average.reduce,
    "Reshape": wiring.reshape,
    "Resize": resize.resize,
    "Slice": crop.crop,
    "SpaceToDepth": wiring.space_to_depth,
    "Squeeze": wiring.squeeze,
    "Sub": product.sub,
    "Sum": wiring.add,
    "Transpose": wiring.transpose,
    "Unsqueeze": wiring.squeeze,
    "Where": wiring.where,
}

# Columns and rows of Fig. 3: how rectifiers are reversed, and how max pooling is.
RU = {
    "1": activation.IDENTITY,
    "RU": activation.RECTIFY,
    "RU^BP": activation.BP,
    "RU o RU^BP": activation.BP_RECTIFY,
}
WHOLE = ("GlobalMaxPool", "ReduceMax", "ReduceMin")
SWITCHES: Variant = {"MaxPool": maxpool.switches, **dict.fromkeys(WHOLE, maxpool.first)}
CENTRE: Variant = {"MaxPool": maxpool.centre, **dict.fromkeys(WHOLE, maxpool.middle)}

# fmt: off
VARIANTS: Mapping[str, Variant] = {
    "identity":         {**RU["1"],          **SWITCHES, "LRN": norm.identity},
    "deconvnet":        {**RU["RU"],         **SWITCHES, "LRN": norm.identity},
    "salinet":          {**RU["RU^BP"],      **SWITCHES, "LRN": norm.bp},
    "desalinet":        {**RU["RU o RU^BP"], **SWITCHES, "LRN": norm.identity},
    "identity-centre":  {**RU["1"],          **CENTRE,   "LRN": norm.identity},
    "deconvnet-centre": {**RU["RU"],         **CENTRE,   "LRN": norm.identity},
    "salinet-centre":   {**RU["RU^BP"],      **CENTRE,   "LRN": norm.identity},
    "desalinet-centre": {**RU["RU o RU^BP"], **CENTRE,   "LRN": norm.identity},
}
# fmt: on

BEYOND = (activation.BP.keys() | activation.SQUASH.keys()) - {"Relu"}
"""Activations that the paper does not have; users are told where they met one."""

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

NAMED = ("deconvnet", "salinet", "desalinet")
"""Those that the paper names, in its order."""

LRN: Mapping[str, Rule] = {"identity": norm.identity, "bp": norm.bp}
"""The third axis: Sect. 3.1 sets it apart from the eight, and footnote 5 changes it again."""


def rules(variant: str, lrn: str | None = None) -> Variant:
    """The rule of every operator.

    Args:
        variant: A name in VARIANTS.
        lrn: A name in LRN; None for the variant's own.
    """
    return {**SHARED, **VARIANTS[variant], **({} if lrn is None else {"LRN": LRN[lrn]})}


def title(variant: str) -> str:
    """The name that it is known by."""
    return TITLES[variant].partition(",")[0]


def lrn_of(variant: str) -> str:
    """The name in LRN of the variant's own choice."""
    return next(name for name, rule in LRN.items() if rule is VARIANTS[variant]["LRN"])
