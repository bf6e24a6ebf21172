"""Turn any ONNX CNN into its reversed network: DeConvNet, SaliNet, DeSaliNet and the rest of the family."""

from revgraph.compiler import compile
from revgraph.errors import RevgraphError
from revgraph.loading import load
from revgraph.pair import Compiled
from revgraph.session import Session, Trace
from revgraph.variants import VARIANTS
from revgraph.version import __version__ as __version__

__all__ = ["VARIANTS", "Compiled", "RevgraphError", "Session", "Trace", "compile", "load"]
