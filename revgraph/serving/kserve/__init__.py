"""A server of explanations that speaks the Open Inference Protocol (V2), and the folder that KServe runs.

`service` is what is served, `batches` runs requests together, `protocol` reads and writes V2's tensors,
`server` listens, `container` writes what Kubernetes needs.
"""
