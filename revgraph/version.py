"""The version, which the build reads and the files that revgraph writes name."""

__version__ = "0.1.0"
