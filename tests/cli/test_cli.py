"""The command line: what it writes, prints and returns."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import cnn, model, node, overflowing
from PIL import Image

import revgraph
from revgraph import cli

RECIPE = """
title = "mine"
[input]
channels = "RGB"
scale = 1.0
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
[labels]
file = "names.txt"
count = 5
"""
COMMANDS = tuple(cli.COMMANDS)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with a network, pictures and a recipe."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REVGRAPH_CACHE", str(tmp_path / "cache"))
    onnx.save(cnn(), "net.onnx")
    Path("mine.toml").write_text(RECIPE)
    Path("names.txt").write_text("one\ntwo\nthree\nfour\nfive\n")
    rng = np.random.default_rng(0)
    for name in ("cat.png", "pictures/a.png", "pictures/b.jpg"):
        Path(name).parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (12, 10, 3), np.uint8)).save(name)
    return tmp_path


@pytest.fixture
def run(here, capsys):
    """Runs a command line; returns the status, the lines on stdout and those on stderr."""

    def call(line, *more):
        status = cli.main([*line.split(), *more])
        out, err = capsys.readouterr()
        return status, out.splitlines(), err.splitlines()

    return call


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# ----- compile -----


def test_compile_writes_a_pair_and_says_so(run, here):
    status, out, err = run("compile net.onnx --variant desalinet -o out")
    assert (status, err) == (0, [])
    assert tree(here / "out") == ["net.desalinet.forward.onnx", "net.desalinet.reversed.onnx"]
    first, second = (re.split(r" {2,}", line) for line in out)
    assert first[0] == str(Path("out/net.desalinet.forward.onnx"))
    assert first[2:] == ["1 input", "5 outputs"]
    assert second[0] == str(Path("out/net.desalinet.reversed.onnx"))
    assert second[2:] == ["4 inputs", "1 output"]


def test_compile_fused_writes_one_file(run, here):
    assert run("compile net.onnx --variant desalinet -o out")[0] == 0
    status, out, _ = run("compile net.onnx --variant desalinet --fused -o out")
    assert (status, len(out)) == (0, 1)
    assert tree(here / "out") == ["net.desalinet.onnx"]


def test_compile_passes_its_options_on(run, here):
    options = "--variant salinet --at pool1 --input x --lrn identity --target portable"
    assert run(f"compile net.onnx {options} -o deep/out")[0] == 0
    metadata = revgraph.load("deep/out").metadata
    expected = {"variant": "salinet", "at": "pool1", "input": "x", "lrn": "identity", "target": "portable"}
    assert metadata.items() >= expected.items()


@pytest.mark.parametrize("variant", revgraph.VARIANTS)
def test_every_variant_runs(run, variant):
    assert run(f"run net.onnx cat.png --variant {variant} --recipe mine.toml -o out.png")[0] == 0


# ----- run -----


def test_run_explains_a_picture(run, here):
    before = tree(here)
    status, out, err = run("run net.onnx cat.png --recipe mine.toml -o cat.explained.png")
    assert (status, err) == (0, [])
    assert len(out) == 1
    path, summary = re.split(r" {2,}", out[0])
    assert path == "cat.explained.png"
    assert re.fullmatch(r"(one|two|three|four|five) \(\d\), score \S+, probability 0\.\d\d", summary)
    assert tree(here) == sorted([*before, "cat.explained.png"])
    with Image.open("cat.explained.png") as drawn:
        assert drawn.width > 3 * 8


def test_run_explains_a_folder_with_several_neurons(run, here):
    line = "run net.onnx pictures --recipe mine.toml --neuron max --neuron class:2 -o out"
    status, out, _ = run(line)
    expected = [f"{stem}.desalinet.{spec}.png" for stem in "ab" for spec in ("max", "class-2")]
    assert status == 0
    assert [Path(re.split(r" {2,}", row)[0]).name for row in out] == expected
    assert tree(here / "out") == sorted(expected)
    assert all("three (2)" in row for row in out[1::2])


def test_run_takes_a_folder_that_compile_wrote(run, here):
    for variant in ("salinet", "desalinet"):
        assert run(f"compile net.onnx --variant {variant} --at pool1 -o out")[0] == 0
    status, out, _ = run("run out cat.png --variant salinet --recipe mine.toml --json -o a.png")
    (row,) = json.loads("\n".join(out))
    assert (status, row["variant"], row["at"], row["label"]) == (0, "salinet", "pool1", None)
    assert len(row["position"]) == 2


def test_compile_fuses_once(run, monkeypatch):
    fuse, fusings = revgraph.Compiled.light_fused, []

    def counted(self, choose=None):
        fusings.append(choose)
        return fuse(self, choose)

    monkeypatch.setattr(revgraph.Compiled, "light_fused", counted)
    assert run("compile net.onnx --variant desalinet --fused --choose max -o out")[0] == 0
    assert fusings == ["max"]


@pytest.mark.parametrize("fused", ["", "--fused"])
def test_run_gives_the_same_picture_however_compiled(run, here, fused):
    assert run(f"compile net.onnx --variant desalinet {fused} -o out")[0] == 0
    assert run("run net.onnx cat.png --recipe mine.toml -o a.png")[0] == 0
    assert run("run out cat.png --recipe mine.toml -o b.png")[0] == 0
    assert (here / "a.png").read_bytes() == (here / "b.png").read_bytes()


def test_run_without_a_recipe_says_what_it_does(run):
    status, out, err = run("run net.onnx cat.png -o out.png")
    assert (status, len(out), len(err)) == (0, 1, 1)
    assert err[0].startswith("revgraph: note: no recipe given")
    assert "ImageNet" in err[0]


def test_the_models_own_recipe_is_used(run):
    net = cnn()
    onnx.helper.set_model_props(net, {"revgraph.recipe": "caffe"})
    onnx.save(net, "net.onnx")
    assert run("run net.onnx cat.png -o a.png")[2] == []
    assert run("run net.onnx cat.png --recipe caffe -o b.png")[2] == []
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()


def test_run_says_where_nothing_survives(run):
    net = cnn()
    weights = net.graph.initializer[2]  # w3: all negative, so that DeConvNet rectifies everything away
    weights.CopyFrom(onnx.numpy_helper.from_array(-np.ones((5, 12), np.float32), weights.name))
    onnx.save(net, "dead.onnx")
    status, out, err = run("run dead.onnx cat.png --variant deconvnet --recipe mine.toml -o out.png")
    assert (status, len(out), len(err)) == (0, 1, 1)
    assert err[0] == "revgraph: note: x_hat in 'out.png' is all zero: nothing survives after gap"


def test_the_seed_is_the_generators(run, here):
    for seed, name in (("1", "a.png"), ("1", "b.png"), ("2", "c.png")):
        line = f"run net.onnx cat.png --at relu1 --neuron random --recipe mine.toml --seed {seed} -o {name}"
        assert run(line)[0] == 0
    a, b, c = ((here / name).read_bytes() for name in ("a.png", "b.png", "c.png"))
    assert a == b != c


def test_run_again_replaces_the_picture(run, here):
    (here / "out.png").write_bytes(b"old")
    assert run("run net.onnx cat.png --recipe mine.toml -o out.png")[0] == 0
    assert (here / "out.png").read_bytes() != b"old"


# ----- inspect, variants, models -----


def test_inspect_lists_the_layers(run):
    status, out, err = run("inspect net.onnx")
    assert (status, err) == (0, [])
    assert [line.split()[0] for line in out[:9]] == ["layer", *(n.name for n in cnn().graph.node[:8])]
    assert "8 layers between x and logits" in out[10]
    assert run("inspect net.onnx --at pool1")[1][4] == ""


def test_inspect_names_what_cannot_be_reversed(run):
    nodes = [node("Relu", "x", "a"), node("Hardmax", "a", "b", axis=1), node("Relu", "b", "y")]
    onnx.save(model(nodes, [1, 3, 4, 4]), "odd.onnx")
    status, out, err = run("inspect odd.onnx")
    assert (status, err) == (0, [])
    assert re.match(r"b +Hardmax +1 x 3 x 4 x 4 +cannot be reversed", out[2])
    assert "no rule for Hardmax" in out[-1]


def test_names_do_not_command_the_terminal(run):
    """Nor break a line for each layer: a model's names may hold any letters."""
    name = "a\x1b[31m\nb"
    nodes = [
        onnx.helper.make_node("Relu", ["x"], [name], name),
        onnx.helper.make_node("Hardmax", [name], ["y"], "y"),
    ]
    onnx.save(model(nodes, [1, 3, 4, 4]), "odd.onnx")
    status, out, err = run("inspect odd.onnx")
    assert (status, err) == (0, [])
    assert out[1].startswith(r"a\x1b[31m\nb ")
    assert all(line.isprintable() for line in out)


def test_variants_is_the_papers_table(run):
    status, out, err = run("variants")
    assert (status, err, len(out)) == (0, [], 9)
    assert [line.split()[0] for line in out[1:]] == list(revgraph.VARIANTS)


def test_models_lists_the_recipes(run):
    status, out, err = run("models")
    assert (status, err) == (0, [])
    assert [line.split()[0] for line in out[1:]] == ["caffe", "imagenet", "squeezenet1_1"]


# ----- everywhere -----


@pytest.mark.parametrize(
    ("line", "keys"),
    [
        ("compile net.onnx --variant desalinet -o out", {"path", "nodes", "inputs", "outputs"}),
        (
            "run net.onnx pictures -o out",
            {"path", "picture", "variant", "neuron", "channel", "score", "summary"},
        ),
        ("variants", {"variant", "title"}),
        ("models", {"recipe", "title", "licence", "layers"}),
    ],
)
@pytest.mark.parametrize("before", [True, False])
def test_json_is_json_alone(run, line, keys, before):
    status, out, err = run(f"-q --json {line}" if before else f"{line} -q --json")
    assert (status, err) == (0, [])
    rows = json.loads("\n".join(out))
    assert rows
    assert all(row.keys() >= keys for row in rows)


def test_inspect_as_json(run):
    found = json.loads("\n".join(run("inspect net.onnx --json")[1]))
    assert (found["x"], found["y"], len(found["layers"])) == ("x", "logits", 8)
    assert found["layers"][0]["shape"] == ["N", 10, 8, 8]


@pytest.mark.parametrize("flag", ["-q", "--quiet"])
def test_quiet_silences_stderr_and_leaves_the_results(run, flag):
    status, out, err = run(f"run net.onnx cat.png -o out.png {flag}")
    assert (status, len(out), err) == (0, 1, [])


@pytest.mark.parametrize("line", ["", *COMMANDS])
def test_help_shows_examples_and_defaults(capsys, line):
    with pytest.raises(SystemExit) as left:
        cli.main([*line.split(), "--help"])
    out, err = capsys.readouterr()
    assert (left.value.code, err) == (0, "")
    examples = out.partition("examples:\n")[2].strip().splitlines()
    assert len(examples) >= 2
    assert all(example.strip().startswith(f"revgraph {line}".strip()) for example in examples)
    if line in ("run", "demo", "compile"):
        assert "(default: " in out
    assert all(name in out for name in (() if line else COMMANDS))


@pytest.mark.parametrize("command", COMMANDS)
def test_the_examples_are_right_usage(capsys, command):
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    examples = capsys.readouterr().out.partition("examples:\n")[2].strip().splitlines()
    for example in examples:
        words = example.partition(" > ")[0].split()
        assert cli.parser().parse_args(words[1:]).run


def test_version(capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(["--version"])
    assert (left.value.code, capsys.readouterr().out) == (0, f"revgraph {revgraph.__version__}\n")


SCRIPT = Path(sys.executable).with_name("revgraph")


@pytest.mark.parametrize(
    "entry", [[sys.executable, "-m", "revgraph"], [str(SCRIPT)]], ids=["module", "script"]
)
def test_as_a_process(here, entry):
    if not Path(entry[0]).exists():
        pytest.skip("revgraph is not installed beside this Python")

    def call(*arguments):
        done = subprocess.run([*entry, *arguments], capture_output=True, text=True, check=False, cwd=here)
        return done.returncode, done.stdout, done.stderr

    status, out, err = call("run", "net.onnx", "cat.png", "--recipe", "mine.toml", "-o", "out.png")
    assert (status, err) == (0, "")
    assert out.startswith("out.png  ")
    assert call("compile", "none.onnx", "--variant", "salinet", "-o", "out") == (
        1,
        "",
        "revgraph: error: cannot read 'none.onnx': there is no such file (give the path of an .onnx file)\n",
    )
    status, out, err = call("nonsense")
    assert (status, out) == (2, "")
    assert "invalid choice: 'nonsense'" in err


def test_activations_beyond_the_paper_are_named_in_one_line(tmp_path, capsys):
    nodes = [node("Conv", "x w", "conv"), node("Sigmoid", "conv", "s")]
    nodes += [node("Mul", "conv s", "silu"), node("Tanh", "silu", "tanh")]
    onnx.save(model(nodes, [1, 3, 8, 8], {"w": np.ones((2, 3, 3, 3), np.float32)}), tmp_path / "net.onnx")
    line = [str(tmp_path / "net.onnx"), "--variant", "desalinet", "-o", str(tmp_path / "out")]
    assert cli.main(["compile", *line]) == 0
    notes = capsys.readouterr().err.splitlines()
    assert notes == [
        "revgraph: note: activations that the paper does not have are reversed by their slope: silu, tanh"
    ]


# ----- NaN, infinities, denormals -----


def spoilt(name: str, *values: float) -> None:
    """net.onnx, the first numbers of a weight replaced."""
    net = cnn()
    tensor = next(tensor for tensor in net.graph.initializer if tensor.name == name)
    changed = onnx.numpy_helper.to_array(tensor).copy()
    changed.flat[: len(values)] = values
    tensor.CopyFrom(onnx.numpy_helper.from_array(changed, name))
    onnx.save(net, "net.onnx")


@pytest.mark.parametrize(
    "line",
    [
        "compile net.onnx --variant salinet -o out",
        "run net.onnx cat.png --recipe mine.toml -o out.png",
        "batch pictures --model net.onnx --recipe mine.toml -o out",
        "segment cat.png --model net.onnx --recipe mine.toml -o out",
        "package net.onnx --for triton -o out",
    ],
)
def test_weights_that_are_not_finite_are_one_line(run, here, line):
    spoilt("w2", 1, np.nan)
    before = tree(here)
    status, out, err = run(line)
    assert (status, out) == (1, [])
    why = "its weight 'w2' holds 1 NaN of 1,080 numbers, the first at [0, 0, 0, 1]"
    assert err[-1].startswith("revgraph: error: ")
    assert err[-1].endswith(f"cannot reverse node 'conv2': {why} (train or export the model again)")
    assert tree(here) == before


def test_inspect_says_which_weights_are_not_finite(run):
    spoilt("w2", 1, np.inf)
    status, out, _ = run("inspect net.onnx")
    assert status == 0
    assert out[-1].startswith(
        "cannot reverse node 'conv2': its weight 'w2' holds 1 infinite of 1,080 numbers"
    )


def test_denormal_weights_are_a_note_wherever_the_network_is_used(run):
    spoilt("w2", 1e-40, -1e-41)
    note = "revgraph: note: weights that are denormal: 2, in w2: runtimes may take them for zero"
    for line in (
        "compile net.onnx --variant salinet -o out",
        "run out cat.png --recipe mine.toml -o out.png",
        "run net.onnx cat.png --recipe mine.toml -o out.png",
        "inspect net.onnx",
        "figure overview --model net.onnx --recipe mine.toml --picture cat.png -o figure.png",
    ):
        status, _, err = run(line)
        assert status == 0, err
        assert [text for text in err if text.startswith(note)], line
    assert run("compile net.onnx --variant salinet --quiet -o out")[2] == []
    assert "2 weights are denormal" in run("verify out")[1][0]
    (found,) = (
        layer
        for layer in json.loads("\n".join(run("inspect net.onnx --json")[1]))["layers"]
        if layer["odd_weights"]
    )
    assert found["odd_weights"] == {"w2": {"nan": 0, "infinite": 0, "denormal": 2}}


@pytest.mark.parametrize(
    "line", ["run net.onnx pictures -o out", "compare net.onnx net.onnx pictures -o out"]
)
def test_what_overflows_names_the_picture_and_the_layer(run, here, line):
    """The bright one; nothing is written of the other either."""
    onnx.save(overflowing(1.0, 1.0, 6e37), "net.onnx")
    for name, level in ("pictures/a.png", 100), ("pictures/b.jpg", 255):
        Image.new("RGB", (8, 8), (level,) * 3).save(name)
    before = tree(here)
    status, out, err = run(line + " --recipe imagenet")
    assert (status, out) == (1, [])
    assert err[-1].startswith(
        f"revgraph: error: '{Path('pictures/b.jpg')}': cannot reverse 'net': y holds 192 infinite"
    )
    assert "the first layer that does is 'y'" in err[-1]
    assert tree(here) == before
