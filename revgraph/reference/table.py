"""All operators, and the eight variants of Fig. 3."""

from collections.abc import Mapping

from revgraph.errors import RevgraphError
from revgraph.reference import (
    activations,
    affine,
    arithmetic,
    constants,
    normalisation,
    pools,
    reductions,
    resize,
    rows,
    wiring,
)
from revgraph.reference.layer import Layer, Operator, Reversed

OPERATORS: Mapping[str, Operator] = {
    **activations.OPERATORS,
    **affine.OPERATORS,
    **arithmetic.OPERATORS,
    **constants.OPERATORS,
    **normalisation.OPERATORS,
    **pools.OPERATORS,
    **reductions.OPERATORS,
    **resize.OPERATORS,
    **rows.OPERATORS,
    **wiring.OPERATORS,
}
VARIANTS = {relu + pool: (relu, pool) for pool in pools.MAX_POOL for relu in activations.RELU}


def operator(layer: Layer) -> Operator:
    op_type = layer.node.op_type
    if layer.node.domain not in ("", "ai.onnx") or op_type not in OPERATORS:
        known = f"rules exist for {', '.join(sorted(OPERATORS))}"
        kind = f"{layer.node.domain}.{op_type}".removeprefix(".")
        raise layer.refusal(f"the reference has no rule for {kind}", known)
    return OPERATORS[op_type]


def reversals(variant: str, lrn: str | None) -> dict[str, Reversed]:
    """The reversed layer of each operator that has one."""
    lrn = lrn or ("bp" if variant == "salinet" else "identity")
    for kind, name, known in (
        ("variant", variant, VARIANTS),
        ("reversal of LRN", lrn, normalisation.LRN),
    ):
        if name not in known:
            raise RevgraphError(
                f"no {kind} {name!r}", "there is none of that name", f"choose from {', '.join(known)}"
            )
    relu, pool = VARIANTS[variant]
    choice = activations.RELU[relu]
    return {
        **{name: op.reversed for name, op in OPERATORS.items() if op.reversed},
        **{name: activations.rectified(choice, op.slope) for name, op in OPERATORS.items() if op.slope},
        **pools.MAX_POOL[pool],
        "LRN": normalisation.LRN[lrn],
    }


def rule(layer: Layer, operand: int, rules: Mapping[str, Reversed]) -> Reversed:
    """The reversed layer that leads to this input."""
    op_type, data = layer.node.op_type, operator(layer).data
    if op_type not in rules:
        known = f"reversed layers exist for {', '.join(sorted(rules))}"
        raise layer.refusal(f"the reference has no reversed layer for {op_type}", known, "reverse")
    if data is not None and operand not in data:
        why = f"input {operand} of this {op_type}, {layer.node.input[operand]!r}, is not constant"
        raise layer.refusal(why, f"only input {data[0]} may come from the picture", "reverse")
    return rules[op_type]
