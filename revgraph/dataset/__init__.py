"""Whole data sets: pictures in by the thousand, a Parquet data set out.

`source` lists the pictures, `explaining` turns some of them into rows, `output` keeps the rows and knows what
is left, `pipeline` runs it on all cores of a machine and `cluster` on many machines; `places` are folders and
object stores.
"""

ENGINES = {"local": "this machine", "ray": "Ray Data: the cluster of RAY_ADDRESS, else a Ray of its own"}

MAPS = {
    "none": "statistics alone",
    "png": "8-bit grey, as run shows them",
    "float16": "numbers from 0 to 1, times saliency_max what they are",
}
"""How saliency maps are kept."""
