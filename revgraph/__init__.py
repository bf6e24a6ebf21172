"""Turn any ONNX CNN into its reversed network."""

__version__ = "0.1.0"
