"""`revgraph serve`."""

import argparse
import asyncio
import sys

from revgraph.cli import given, options, printing
from revgraph.cli.command import Args, Command
from revgraph.errors import missing_extra
from revgraph.feeding import Feeder, NoPicturesError
from revgraph.pair import Compiled
from revgraph.recipe import Recipe
from revgraph.serving import LIMITS, Limits
from revgraph.session import Session


def arguments(sub: argparse.ArgumentParser) -> None:
    options.served(sub)
    sub.add_argument("--host", default="127.0.0.1", help="0.0.0.0 listens to other machines too")
    for protocol, default in {"http": 8080, "grpc": 8081}.items():
        name = f"--{protocol}-port"
        sub.add_argument(name, metavar="PORT", type=options.port, default=default, help="0 for any")
    help_bytes = "most bytes of a request"
    sub.add_argument("--max-bytes", metavar="N", type=options.positive, default=LIMITS.bytes, help=help_bytes)
    help_limit = "for a request to arrive, and for its answer"
    sub.add_argument(
        "--time-limit", metavar="SECONDS", type=options.positive, default=LIMITS.seconds, help=help_limit
    )


def run(args: Args) -> None:
    try:
        from revgraph.serving.kserve import server
    except ImportError as error:
        raise missing_extra("cannot serve", str(error.name), "serve") from error
    from revgraph.serving.kserve.service import Service

    compiled, recipe = given.compilation(args)
    session = Session(compiled, threads=args.threads, device=args.device)
    service = Service(session, _feeder(args, compiled, recipe), args.batch)
    service.warm_up()

    def started(http: str, grpc: str) -> None:
        rows = [{"address": http, "what": "HTTP"}, {"address": grpc, "what": "gRPC"}]
        printing.results(args, rows)
        sys.stdout.flush()
        printing.say_notes(args)

    limits = Limits(args.batch, args.max_bytes, args.time_limit)
    asyncio.run(server.serve(service, args.host, args.http_port, args.grpc_port, limits, started))


def _feeder(args: Args, compiled: Compiled, recipe: Recipe) -> Feeder | None:
    """What feeds pictures to a network; None where it takes none, and no recipe says so."""
    try:
        return Feeder(compiled, recipe)
    except NoPicturesError as error:
        if args.recipe:
            raise
        args.notes.append(f"tensors are taken alone, no pictures: {error}")
        return None


COMMAND = Command(
    "serve explanations over HTTP and gRPC, by the Open Inference Protocol (V2)",
    ("out", "squeezenet1_1 --bottleneck packed --http-port 8000 --grpc-port 8001"),
    arguments,
    run,
)
