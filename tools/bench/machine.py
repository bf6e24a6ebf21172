"""What the figures were measured on: the processor and the versions, no names of hosts or folders."""

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    *("revgraph", "onnxruntime", "onnx", "onnx-graphsurgeon", "numpy"),
    *("torch", "captum", "onnx2torch", "onnx-ad"),
)

FLAGS = r"avx\w*|amx\w*|fma|f16c|asimd\w*|sve\w*"
"""Instruction sets that matter to convolutions."""


def machine() -> dict[str, object]:
    cpuinfo, meminfo = (_read(f"/proc/{name}") for name in ("cpuinfo", "meminfo"))
    model = re.search(r"model name\s*:\s*(.+)", cpuinfo)
    flags = re.search(r"(?:flags|Features)\s*:\s*(.+)", cpuinfo)
    memory = re.search(r"MemTotal:\s*(\d+) kB", meminfo)
    return {
        "cpu": model[1].strip() if model else platform.processor(),
        "architecture": platform.machine(),
        "family, model, stepping": [_number(cpuinfo, key) for key in ("cpu family", "model", "stepping")],
        "cores": os.cpu_count(),
        "flags": sorted(word for word in (flags[1].split() if flags else ()) if re.fullmatch(FLAGS, word)),
        "memory_gib": round(int(memory[1]) / 2**20, 1) if memory else None,
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": {package: _version(package) for package in PACKAGES},
    }


def _number(cpuinfo: str, key: str) -> int | None:
    found = re.search(rf"^{key}\s*:\s*(\d+)", cpuinfo, re.MULTILINE)
    return int(found[1]) if found else None


def _read(path: str) -> str:
    file = Path(path)
    return file.read_text() if file.exists() else ""


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
