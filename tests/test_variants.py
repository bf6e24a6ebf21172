"""The eight architectures of Fig. 3, and LRN as the third axis."""

import pytest
from layers import refusal
from networks import cnn

import revgraph
from revgraph import variants
from revgraph.rules import activation, maxpool, norm, relu

# Fig. 3, left to right: RU reversed as 1, RU, RU^BP, RU o RU^BP; top row MP^BP, bottom row to the centre.
RELUS = {
    "identity": relu.identity,
    "deconvnet": relu.rectify,
    "salinet": relu.mask,
    "desalinet": activation.BP_RECTIFY["Relu"],
}
POOLS = {"": maxpool.switches, "-centre": maxpool.centre}


def test_the_eight():
    assert set(revgraph.VARIANTS) == {name + row for name in RELUS for row in POOLS}
    assert set(variants.TITLES) == set(revgraph.VARIANTS)
    assert [variants.title(name) for name in variants.NAMED] == ["DeConvNet", "SaliNet", "DeSaliNet"]


@pytest.mark.parametrize("name", RELUS)
@pytest.mark.parametrize("row", POOLS)
def test_each_table(name, row):
    table = variants.rules(name + row)
    assert table["Relu"] is RELUS[name]
    assert table["MaxPool"] is POOLS[row]
    assert table["LRN"] is (norm.bp if name + row == "salinet" else norm.identity)


def test_they_differ_in_nothing_else():
    tables = [variants.rules(name) for name in revgraph.VARIANTS]
    assert all(table.keys() == tables[0].keys() for table in tables)
    for op in tables[0].keys() - activation.BP.keys() - variants.SWITCHES.keys() - {"LRN"}:
        names = {table[op].name for table in tables}
        assert len(names) == 1, op


@pytest.mark.parametrize("op", sorted(activation.BP.keys() - {"Relu"}))
@pytest.mark.parametrize("row", POOLS)
def test_other_rectifiers_take_the_same_choice(op, row):
    """Decision 6: r is the slope at x; BP multiplies by it, the others do not."""
    chosen = [variants.rules(name + row)[op] for name in RELUS]
    assert chosen[:2] == [relu.identity, relu.rectify]
    assert [rule.name for rule in chosen[2:]] == ["BP", "RU o BP"]


def test_desalinet_is_rectification_after_the_mask():
    composed = activation.BP_RECTIFY["Relu"]
    assert composed.name == f"{relu.rectify.name} o {relu.mask.name}"
    assert composed.bottleneck is relu.mask.bottleneck


@pytest.mark.parametrize("name", revgraph.VARIANTS)
@pytest.mark.parametrize("lrn", ["identity", "bp"])
def test_lrn_is_overridden_alone(name, lrn):
    own, other = variants.rules(name), variants.rules(name, lrn)
    assert other["LRN"] is variants.LRN[lrn]
    assert {op for op in own if own[op] is not other[op]} <= {"LRN"}
    assert variants.LRN[variants.lrn_of(name)] is own["LRN"]


@pytest.mark.parametrize(("name", "lrn"), [("salinet", "bp"), ("salinet-centre", "identity")])
def test_the_choice_is_noted_in_the_files(name, lrn):
    assert revgraph.compile(cnn(), variant=name).metadata["lrn"] == lrn
    assert revgraph.compile(cnn(), variant=name, lrn="bp").metadata["lrn"] == "bp"


def test_unknown_names_are_refused():
    with pytest.raises(revgraph.RevgraphError) as caught:
        revgraph.compile(cnn(), variant="salient")
    names = ", ".join(revgraph.VARIANTS)
    assert str(caught.value) == f"unknown variant: 'salient' (known: {names})"
    assert refusal(cnn(), lrn="gradient") == (
        "unknown reversal of LRN",
        "'gradient'",
        "known: identity, bp",
    )
