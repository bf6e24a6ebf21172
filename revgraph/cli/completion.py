"""`revgraph completion`."""

import argparse

import shtab

from revgraph.cli.command import Args, Command


def arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "shell", metavar="SHELL", choices=shtab.SUPPORTED_SHELLS, help=", ".join(shtab.SUPPORTED_SHELLS)
    )


def run(args: Args) -> None:
    print(shtab.complete(args.parser, args.shell))


COMMAND = Command(
    "print a script with which a shell completes revgraph's commands and options",
    (
        "bash > ~/.local/share/bash-completion/completions/revgraph",
        "zsh > ~/.zfunc/_revgraph",
        "fish > ~/.config/fish/completions/revgraph.fish",
    ),
    arguments,
    run,
)
