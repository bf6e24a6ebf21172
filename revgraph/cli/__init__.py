"""The command line: a file for each command; each parses, calls one function of the library, and prints."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence

import revgraph
from revgraph.cli import (
    batch,
    compare,
    compile,
    completion,
    demo,
    doctor,
    figure,
    inspect,
    models,
    options,
    package,
    printing,
    run,
    search,
    segment,
    serve,
    variants,
    verify,
)
from revgraph.cli.command import Command
from revgraph.errors import RevgraphError

COMMANDS: dict[str, Command] = {
    "compile": compile.COMMAND,
    "run": run.COMMAND,
    "inspect": inspect.COMMAND,
    "verify": verify.COMMAND,
    "compare": compare.COMMAND,
    "variants": variants.COMMAND,
    "models": models.COMMAND,
    "doctor": doctor.COMMAND,
    "demo": demo.COMMAND,
    "figure": figure.COMMAND,
    "search": search.COMMAND,
    "segment": segment.COMMAND,
    "batch": batch.COMMAND,
    "package": package.COMMAND,
    "serve": serve.COMMAND,
    "completion": completion.COMMAND,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Arguments without the program's name; None for those of the process.

    Returns:
        0 done, 1 this input cannot be done, or is not right, 130 interrupted. Wrong usage exits with 2.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # names of layers may hold what a terminal's code page lacks
            stream.reconfigure(errors="replace")
    args = argparse.Namespace(**{**options.DEFAULTS, **vars(parser().parse_args(argv))}, notes=[])
    try:
        status = args.run(args)
    except RevgraphError as error:
        return _refuse(error)
    except BrokenPipeError:  # whoever read the results has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("revgraph: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except OSError as error:
        what, why = f"cannot use '{error.filename}'", error.strerror or str(error)
        return _refuse(RevgraphError(what, why, "name another path"))
    printing.say_notes(args)
    return int(status or 0)


def _refuse(error: RevgraphError) -> int:
    print(f"revgraph: error: {error}", file=sys.stderr)
    return 1


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Every default shown, where there is one; examples as they are written."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False) else super()._get_help_string(action)


def parser() -> argparse.ArgumentParser:
    """What reads the command line."""
    common = options.everywhere()
    made = argparse.ArgumentParser(
        "revgraph",
        description=revgraph.__doc__,
        epilog="examples:\n  revgraph demo -o out\n  revgraph run squeezenet1_1 cat.jpg -o cat.png",
        formatter_class=_Help,
        parents=[common],
        allow_abbrev=False,
    )
    made.add_argument("--version", action="version", version=f"revgraph {revgraph.__version__}")
    made.set_defaults(parser=made)
    commands = made.add_subparsers(metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        examples = "\n".join(f"  revgraph {name} {example}".rstrip() for example in command.examples)
        sub = commands.add_parser(
            name,
            help=command.text,
            description=f"{command.text[0].upper()}{command.text[1:]}.",
            epilog=f"examples:\n{examples}",
            formatter_class=_Help,
            parents=[common],
            allow_abbrev=False,
        )
        command.arguments(sub)
        sub.set_defaults(run=command.run, wrong=sub.error)
    return made
