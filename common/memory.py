"""Large arrays, refused in one line where they can't fit."""

import os

import numpy as np

from common.command import UserError


def zeros(rows: int, columns: int) -> np.ndarray:
    """float32 [rows, columns] of zeros. Raises UserError with the size if this machine has not that much memory."""
    need = rows * columns * 4
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError):  # Windows does not say
        total = float("inf")
    try:
        if need > total:
            raise MemoryError
        return np.zeros((rows, columns), np.float32)
    except (MemoryError, ValueError):  # NumPy's, of more than an array's size can be
        raise UserError(
            f"a replay memory of {rows:,} transitions needs {need / 2**30:.1f} GiB, more than there is"
        ) from None
