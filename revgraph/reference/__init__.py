"""The paper's equations in NumPy float64, forward and reversed: what the compiled graphs are held against.

It runs the user's own model as it stands, by im2col and matmul, and imports nothing of the compiler. Where
ONNX leaves room, `forward` does as onnxruntime's CPU does. Activations are (N, C, *spatial).
"""

from revgraph.reference.patterns import recognised
from revgraph.reference.walk import forward, reverse, reverse_layers

__all__ = ["forward", "recognised", "reverse", "reverse_layers"]
