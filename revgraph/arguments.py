"""The command line's arguments: what each command takes, and its examples."""

import argparse
from collections.abc import Callable, Mapping

import revgraph
from revgraph import choice, compiler, dataset, neuron, paper, serving, variants
from revgraph.errors import RevgraphError
from revgraph.paper import segmentation
from revgraph.runtime import Device

Command = Callable[[argparse.Namespace], int | None]
Add = Callable[..., argparse.ArgumentParser]
"""Adds a command: its name, what it does, and examples."""

EVERYWHERE = {"quiet": False, "json": False, "device": "cpu", "threads": 0}
"""Defaults of the options that every command takes, before or after its name."""


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Every default shown, where there is one; examples as they are written."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False) else super()._get_help_string(action)


def parser(functions: Mapping[str, Command]) -> argparse.ArgumentParser:
    """What reads the command line.

    Args:
        functions: What each command calls, by its name.
    """
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    group = common.add_argument_group("everywhere")
    group.add_argument("-q", "--quiet", action="store_true", help="no progress and no notes on stderr")
    group.add_argument("--json", action="store_true", help="results as JSON on stdout")
    group.add_argument("--device", type=_device, metavar="NAME", help="cpu, cuda, cuda:1 (default: cpu)")
    group.add_argument(
        "--threads",
        type=whole,
        metavar="N",
        help="onnxruntime's threads (default: 0, it decides; 1 where several pictures run at once)",
    )
    made = argparse.ArgumentParser(
        "revgraph",
        description=revgraph.__doc__,
        epilog="examples:\n  revgraph demo -o out\n  revgraph run squeezenet1_1 cat.jpg -o cat.png",
        formatter_class=_Help,
        parents=[common],
        allow_abbrev=False,
    )
    made.add_argument("--version", action="version", version=f"revgraph {revgraph.__version__}")
    commands = made.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, text: str, *examples: str) -> argparse.ArgumentParser:
        epilog = "examples:\n" + "\n".join(f"  revgraph {name} {example}".rstrip() for example in examples)
        sub = commands.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            epilog=epilog,
            formatter_class=_Help,
            parents=[common],
            allow_abbrev=False,
        )
        sub.set_defaults(command=functions[name])
        return sub

    _compile_arguments(command)
    _run_arguments(command)
    sub = command("inspect", "list a model's layers, their rules and bottlenecks", *_INSPECT)
    _model_arguments(sub)
    sub.add_argument("--input", metavar="NAME", help="the input to come back to (default: the only one)")
    help_draw = "also draw it and its DeSaliNet: .dot, or .svg, .png, .pdf where Graphviz is installed"
    sub.add_argument("--draw", metavar="FILE", help=help_draw)
    _verify_arguments(command)
    _compare_arguments(command)
    command("variants", "list the eight variants of the paper's Fig. 3", "", "--json")
    command("models", "list the recipes and networks that revgraph knows", "", "--json")
    command("doctor", "show what this machine can run, and why not the rest", "", "--json")
    sub = command(
        "demo",
        "compile SqueezeNet, run it on a photograph and draw the result",
        "",
        "-o out",
        "--web -o page",
    )
    sub.add_argument("--web", action="store_true", help="as a page in the browser, served to this machine")
    sub.add_argument("--port", type=whole, metavar="N", default=8000, help="of the page; 0 is a free one")
    sub.add_argument("-o", "--output", default="out", metavar="FOLDER", help="where the files go")
    _figure_arguments(command)
    _search_arguments(command)
    _segment_arguments(command)
    _batch_arguments(command)
    _package_arguments(command)
    _serve_arguments(command)
    return made


_INSPECT = ("squeezenet1_1", "alexnet.onnx --at pool5 --json")
_LAYER = "a tensor's name, else a node's (default: what the softmax receives, else the first output)"


def _model_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("model", metavar="MODEL", help="an ONNX file, or a network of `revgraph models`")
    sub.add_argument("--at", metavar="LAYER", help=_LAYER)


def _compile_arguments(command: Add) -> None:
    sub = command(
        "compile",
        "write a model's forward graph, tapped, and its reversed graph",
        "squeezenet1_1 --variant desalinet -o out",
        "alexnet.onnx --variant salinet --at pool5 --lrn bp -o out",
        "model.onnx --variant desalinet --fused --choose class -o out",
    )
    sub.set_defaults(wrong=sub.error)
    _model_arguments(sub)
    sub.add_argument("--variant", required=True, choices=variants.VARIANTS, help="which of the eight")
    sub.add_argument(
        "--input", metavar="NAME", help="the input that x_hat belongs to (default: the only one)"
    )
    sub.add_argument("--lrn", choices=variants.LRN, help="reversal of LRN (default: the variant's own)")
    sub.add_argument("--target", choices=compiler.TARGETS, default="portable", help="where it shall run")
    sub.add_argument(
        "--precision",
        choices=(*compiler.PRECISIONS, "bf16"),  # the last is refused with its reason
        metavar="{fp32,fp16}",
        default="fp32",
        help="fp16: compute in float16 where that suits, and keep what comes back in its range",
    )
    help_packed = "packed: masks and switches cross in as few bits as they need"
    sub.add_argument("--bottleneck", choices=compiler.BOTTLENECKS, default="plain", help=help_packed)
    help_full = "turn a classifier's fully connected head into convolutions, so that any picture size runs"
    sub.add_argument("--fully-convolutional", action="store_true", help=help_full)
    sub.add_argument("--fused", action="store_true", help="one file in place of two")
    help_choose = "with --fused, p is chosen in the graph: the largest of y, or by an input `class`"
    sub.add_argument("--choose", choices=choice.CHOICES, help=help_choose)
    sub.add_argument("-o", "--output", required=True, metavar="FOLDER", help="where the files go")


def _verify_arguments(command: Add) -> None:
    sub = command(
        "verify",
        "prove a compilation right on its own network, in float64",
        "out --variant desalinet",
        "out --model alexnet.onnx",
    )
    sub.add_argument("folder", metavar="FOLDER", help="where revgraph compile wrote")
    sub.add_argument("--model", metavar="MODEL", help="what it was compiled from, to check the outputs too")
    sub.add_argument(
        "--variant", choices=variants.VARIANTS, help="which compilation, where there are several"
    )
    sub.add_argument("--seed", type=whole, default=0, metavar="N", help="of the random inputs")


def _compare_arguments(command: Add) -> None:
    sub = command(
        "compare",
        "hold two compilations of one network against each other",
        "torch.onnx keras.onnx",
        "torch.onnx keras.onnx holiday/ --variant salinet -o sheets",
        "squeezenet1_1 squeezenet1_1 cat.jpg --variant salinet --variant desalinet -o cat.png",
    )
    what = "an ONNX file, a network of `revgraph models`, or a folder that revgraph compile wrote"
    sub.add_argument("a", metavar="A", help=what)
    sub.add_argument("b", metavar="B", help="another of the same network; its channels may lie elsewhere")
    help_picture = "a picture, or a folder of them (default: one random input)"
    sub.add_argument("picture", metavar="PICTURE", nargs="*", help=help_picture)
    help_variant = "of both, or given twice (default: desalinet, or the folder's own)"
    sub.add_argument("--variant", choices=variants.VARIANTS, action="append", help=help_variant)
    sub.add_argument("--at", metavar="LAYER", action="append", help=f"of both, or given twice: {_LAYER}")
    sub.add_argument("--neuron", metavar="SPEC", default="max", help="chosen by what A makes of the input")
    sub.add_argument("--recipe", metavar="NAME_OR_FILE", help="how pictures are fed")
    sub.add_argument("--seed", type=whole, metavar="N", default=0, help="of the random generator")
    help_output = "a picture, or a folder, of both images and their difference (default: none is drawn)"
    sub.add_argument("-o", "--output", metavar="PICTURE_OR_FOLDER", help=help_output)


def _compilation_arguments(sub: argparse.ArgumentParser) -> None:
    """Of a folder which compilation, of a model how to compile it."""
    help_variant = "which variant (default: desalinet, or a folder's only one)"
    sub.add_argument("--variant", choices=variants.VARIANTS, help=help_variant)
    sub.add_argument("--at", metavar="LAYER", help=_LAYER)


def _neuron_arguments(sub: argparse.ArgumentParser) -> None:
    """Which neurons of which pictures."""
    kinds = ", ".join(kind.usage for kind in neuron.KINDS.values())
    help_neuron = f"{kinds}, or file.npy; may be given several times (default: max)"
    sub.add_argument("--neuron", metavar="SPEC", action="append", help=help_neuron)
    help_recipe = "how pictures are fed (default: the model's own, else imagenet)"
    sub.add_argument("--recipe", metavar="NAME_OR_FILE", help=help_recipe)
    sub.add_argument("--seed", type=whole, metavar="N", default=0, help="of the random generator")


def _run_arguments(command: Add) -> None:
    sub = command(
        "run",
        "explain pictures: the input, x_hat and the saliency map side by side",
        "squeezenet1_1 cat.jpg -o cat.png",
        "out holiday/ --variant desalinet --neuron max --neuron class:285 -o explained",
    )
    sub.add_argument("model", metavar="MODEL_OR_FOLDER", help="as for compile, or a folder it wrote")
    sub.add_argument("picture", metavar="PICTURE", nargs="+", help="picture files, or folders of them")
    _compilation_arguments(sub)
    _neuron_arguments(sub)
    help_output = "a picture's path for one result, else a folder"
    sub.add_argument("-o", "--output", required=True, metavar="PICTURE_OR_FOLDER", help=help_output)


def _batch_arguments(command: Add) -> None:
    sub = command(
        "batch",
        "explain whole data sets: a row for each picture, as Parquet",
        "photos/ --model squeezenet1_1 -o rows",
        "list.csv --model model.onnx --recipe imagenet --neuron max --neuron class:285 --maps png -o rows",
        "s3://bucket/photos --model out --engine ray --device cuda -o s3://bucket/rows",
    )
    help_input = "a folder, a glob, a CSV or Parquet file with a column `path`; or a URI that pyarrow knows"
    sub.add_argument("input", metavar="INPUT", help=help_input)
    sub.add_argument(
        "--model", metavar="MODEL_OR_FOLDER", required=True, help="as for compile, or a folder it wrote"
    )
    _compilation_arguments(sub)
    _neuron_arguments(sub)
    listed = "; ".join(f"{name} ({what})" for name, what in dataset.MAPS.items())
    sub.add_argument(
        "--maps", choices=dataset.MAPS, default="none", help=f"how saliency maps are kept: {listed}"
    )
    listed = "; ".join(f"{name} ({what})" for name, what in dataset.ENGINES.items())
    sub.add_argument("--engine", choices=dataset.ENGINES, default="local", help=f"what runs it: {listed}")
    help_batch = "pictures that run at once (default: 1 on a CPU, 32 on a GPU)"
    sub.add_argument("--batch", metavar="N", type=positive, default=None, help=help_batch)
    help_output = "a folder or URI; one that was begun is gone on with"
    sub.add_argument("-o", "--output", metavar="FOLDER", required=True, help=help_output)


def _figure_arguments(command: Add) -> None:
    sub = command(
        "figure",
        "repeat a figure of the paper, with its numbers in a CSV beside it",
        "overview -o overview.png",
        "phase --model vgg19.onnx --recipe caffe --picture cat.jpg -o phase.png",
        "all -o figures",
    )
    listed = "; ".join(f"{name} ({what})" for name, what in paper.FIGURES.items())
    sub.add_argument("figure", metavar="NAME", choices=(*paper.FIGURES, "all"), help=f"{listed}; or all")
    help_picture = "a picture or a folder of them, may be given several times (default: scikit-image's)"
    sub.add_argument("--picture", metavar="PICTURE", action="append", default=[], help=help_picture)
    _experiment_arguments(sub)
    help_output = "a picture's path; for all a folder"
    sub.add_argument("-o", "--output", required=True, metavar="FILE_OR_FOLDER", help=help_output)


def _search_arguments(command: Add) -> None:
    sub = command(
        "search",
        "find the pictures that excite a channel most, and show what of them did",
        "holiday/ --at pool5 --channel 195 -o sheet.png",
    )
    sub.add_argument("input", metavar="INPUT", help="as for batch: a folder, a glob, a list of pictures")
    sub.add_argument("--at", metavar="LAYER", required=True, help="a tensor's name, else a node's")
    sub.add_argument("--channel", metavar="C", type=whole, required=True, help="of that layer, from 0")
    sub.add_argument("--top", metavar="N", type=positive, default=9, help="how many pictures")
    sub.add_argument("--variant", choices=variants.VARIANTS, default="desalinet", help="how it is reversed")
    _experiment_arguments(sub)
    sub.add_argument("-o", "--output", required=True, metavar="PICTURE", help="where the sheet goes")


def _segment_arguments(command: Add) -> None:
    sub = command(
        "segment",
        "cut out the foreground of pictures, and measure how well against masks (Sect. 3.5)",
        "cat.jpg -o cut",
        "photos/ --masks masks/ --json -o table",
        "--manifest data/manifest.csv --model resnet18.onnx --recipe imagenet -o table",
        "photos/ --method desalinet --blur 16 --centred --solver boykov-jolly -o cut",
    )
    sub.set_defaults(wrong=sub.error)
    help_picture = "picture files, or folders of them; with --manifest those to keep to (default: all of it)"
    sub.add_argument("picture", metavar="PICTURE", nargs="*", help=help_picture)
    truth = sub.add_mutually_exclusive_group()
    help_masks = "the masks, NAME.png or several in NAME/: 0 background, 255 foreground, 128 neither"
    truth.add_argument("--masks", metavar="FOLDER", help=help_masks)
    help_manifest = "a list of image, mask and maybe class; a line for each mask, paths from its own folder"
    truth.add_argument("--manifest", metavar="CSV", help=help_manifest)
    help_method = "a variant, or the Gaussian blob; may be given several times"
    methods = f"{help_method} (default: salinet; with masks the paper's three and the baseline)"
    sub.add_argument("--method", choices=(*variants.VARIANTS, "baseline"), action="append", help=methods)
    _experiment_arguments(sub)
    sub.add_argument("--shorter", metavar="PIXELS", type=_side, default=256, help="a picture's shorter side")
    for name, known in {"selector": segmentation.SELECTORS, "solver": segmentation.SOLVERS}.items():
        listed = "; ".join(f"{key} ({what})" for key, what in known.items())
        sub.add_argument(f"--{name}", choices=known, default=next(iter(known)), help=listed)
    help_smoothness = "boykov-jolly's energy of a border (OpenCV's GrabCut has 50 and no choice)"
    sub.add_argument("--smoothness", metavar="ENERGY", type=_number, default=150.0, help=help_smoothness)
    help_blur = "beyond the paper: the standard deviation of a blur of the maps, in pixels"
    sub.add_argument("--blur", metavar="PIXELS", type=_number, default=0.0, help=help_blur)
    help_centred = "beyond the paper: maps weighted towards the middle"
    sub.add_argument("--centred", action="store_true", help=help_centred)
    help_shuffled = (
        "with masks: also cut each picture by another one's map, which leaves the bias to the middle"
    )
    sub.add_argument("--shuffled", action="store_true", help=help_shuffled)
    sub.add_argument("-o", "--output", required=True, metavar="FOLDER", help="where the files go")


def _package_arguments(command: Add) -> None:
    sub = command(
        "package",
        "write what a serving stack or a browser loads: forward and reversed graphs, or both in one",
        "squeezenet1_1 --for triton -o models",
        "out --for triton --choose class --device cuda:1 -o models",
        "squeezenet1_1 --for kserve --bottleneck packed -o served",
        "model.onnx --for web --recipe imagenet -o page",
    )
    sub.set_defaults(wrong=sub.error)
    sub.add_argument("model", metavar="FOLDER_OR_MODEL", help="a folder that compile wrote, or a model")
    listed = "; ".join(f"{name} ({what})" for name, what in serving.STACKS.items())
    sub.add_argument("--for", dest="stack", required=True, choices=serving.STACKS, help=listed)
    _served_arguments(sub)
    help_choose = "triton: how the model that is both in one chooses its neuron (default: max, the strongest)"
    sub.add_argument("--choose", choices=choice.CHOICES, help=help_choose)
    sub.add_argument("-o", "--output", required=True, metavar="FOLDER", help="where the files go")


def _serve_arguments(command: Add) -> None:
    sub = command(
        "serve",
        "serve explanations over HTTP and gRPC, by the Open Inference Protocol (V2)",
        "out",
        "squeezenet1_1 --bottleneck packed --http-port 8000 --grpc-port 8001",
    )
    sub.add_argument("model", metavar="FOLDER_OR_MODEL", help="a folder that compile wrote, or a model")
    _served_arguments(sub)
    sub.add_argument("--host", default="127.0.0.1", help="0.0.0.0 listens to other machines too")
    sub.add_argument("--http-port", metavar="PORT", type=_port, default=8080, help="0 for any")
    sub.add_argument("--grpc-port", metavar="PORT", type=_port, default=8081, help="0 for any")
    help_bytes = "most bytes of a request"
    sub.add_argument("--max-bytes", metavar="N", type=positive, default=32 * 2**20, help=help_bytes)
    help_limit = "for a request to arrive, and for its answer"
    sub.add_argument("--time-limit", metavar="SECONDS", type=positive, default=30, help=help_limit)


def _served_arguments(sub: argparse.ArgumentParser) -> None:
    _compilation_arguments(sub)
    help_recipe = "how pictures are fed (default: the model's own, else imagenet)"
    sub.add_argument("--recipe", metavar="NAME_OR_FILE", help=help_recipe)
    help_packed = (
        "of a model; packed: masks and switches in few bits, which the server can hand out for later"
    )
    sub.add_argument("--bottleneck", choices=compiler.BOTTLENECKS, default="plain", help=help_packed)
    sub.add_argument(
        "--batch", metavar="N", type=positive, default=8, help="images that a server runs at once, at most"
    )


def _experiment_arguments(sub: argparse.ArgumentParser) -> None:
    help_model = "an ONNX file, or a network of `revgraph models`"
    sub.add_argument("--model", metavar="MODEL", default="squeezenet1_1", help=help_model)
    help_recipe = "how pictures are fed (default: the model's own, else imagenet)"
    sub.add_argument("--recipe", metavar="NAME_OR_FILE", help=help_recipe)


def _device(text: str) -> str:
    try:
        Device.of(text)
    except RevgraphError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _side(text: str) -> int:
    if not 16 <= whole(text) <= 4096:
        raise argparse.ArgumentTypeError("16 to 4096")
    return int(text)


def _port(text: str) -> int:
    if whole(text) > 65535:
        raise argparse.ArgumentTypeError("0 to 65535")
    return int(text)


def positive(text: str) -> int:
    if not whole(text):
        raise argparse.ArgumentTypeError("at least 1")
    return int(text)


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < 1e6:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 0")
    return number


def whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 0")
    return int(text)
