"""What a file holds: of ordinary files alone, and not more than is asked for."""

import errno
import os
import stat
from pathlib import Path

MOST = 2**31 - 1
"""Most bytes unless told otherwise."""


def read_bytes(path: Path, most: int = MOST) -> bytes:
    """What a file holds.

    Args:
        path: Devices and pipes, which may give without end or wait for ever, are not opened.
        most: How many bytes it may have.

    Raises:
        OSError: It cannot be read; `strerror` says why.
    """
    check_ordinary(path)
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size > most:
            raise OSError(errno.EFBIG, f"it has more than {most:,} bytes", str(path))
        return file.read()  # told how much at most, it would take all that memory before


def check_ordinary(path: Path) -> None:
    """Refuse what is no ordinary file before it is opened.

    Raises:
        OSError: It is none, or is not there.
    """
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is a device or a pipe", str(path))
