"""Explanations where ONNX models are served: what each serving stack loads.

Each module is imported by the command that needs it.
"""

STACKS = {"triton": "a model repository for NVIDIA Triton's ONNX Runtime backend"}
"""The stacks, by name."""
