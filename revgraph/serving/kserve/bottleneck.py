"""What a forward pass leaves behind, as bytes that a client keeps until it wants the reversed pass.

A NumPy archive (.npz) for each image: y, the packed bottleneck r by the names of its taps, and the digest of
the compilation that alone can read them.
"""

import io
import zipfile
from collections.abc import Mapping

import numpy as np

from revgraph.errors import RevgraphError

Image = Mapping[str, np.ndarray]
"""y and the taps of one image by name, (1, ...)."""

DIGEST = "digest"
HEADER = 1024
"""Most bytes that an archive says of each tensor beside its content."""

_WHAT, _REMEDY = "cannot read this bottleneck", "send back one that this server gave, as it was"


def pack(image: Image, digest: str) -> bytes:
    """The archive."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:  # np.savez has names of its own, and others in each NumPy
        for name, array in {**image, DIGEST: np.array(digest)}.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    return content.getvalue()


def unpack(data: bytes, most: int, digest: str) -> Image:
    """What `pack` was given; names, types and shapes are the caller's to check.

    Args:
        data: The archive, from a stranger.
        most: How many bytes it may have: it can claim more than it holds.
        digest: Of the compilation.

    Raises:
        RevgraphError: It is no such archive, too large, or another compilation's.
    """
    try:
        found = _arrays(data, most)
    except Exception as error:  # a foreign archive makes its readers raise many things
        raise RevgraphError(_WHAT, f"not a NumPy archive: {error}", _REMEDY) from error
    if str(found.pop(DIGEST, "")) != digest:
        raise RevgraphError(_WHAT, "another compilation's, or not the server's at all", _REMEDY)
    return found


def _arrays(data: bytes, most: int) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if (size := sum(member.file_size for member in archive.infolist())) > most:
            raise ValueError(f"it claims {size:,} bytes")
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return {name: np.asarray(arrays[name]) for name in arrays.files}
