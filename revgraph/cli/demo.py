"""`revgraph demo`."""

import argparse
import contextlib
from pathlib import Path

from revgraph import demo
from revgraph.cli import options, printing
from revgraph.cli.command import Args, Command


def arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--web", action="store_true", help="as a page in the browser, served to this machine")
    help_port = "of the page; 0 is a free one"
    sub.add_argument("--port", type=options.whole, metavar="N", default=8000, help=help_port)
    help_output = "where the files go"
    options.path(sub, "-o", "--output", default="out", metavar="FOLDER", folder=True, help=help_output)


def run(args: Args) -> None:
    if args.web:
        _page(args)
        return
    paths = demo.demo(Path(args.output), threads=args.threads, device=args.device)
    printing.results(args, [{"path": str(path), "what": what} for path, what in paths])


def _page(args: Args) -> None:
    from revgraph.serving import web

    folder = Path(args.output)
    with web.server(folder, args.port) as server:
        printing.write(args, web.example(folder))
        print(f"http://127.0.0.1:{server.server_port}/", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


COMMAND = Command(
    "compile SqueezeNet, run it on a photograph and draw the result",
    ("", "-o out", "--web -o page"),
    arguments,
    run,
)
