"""Difference pictures in little memory: two bits a pixel, and only the few that are not zero when it comes to work.

An integer state (int8) is taken for such a picture throughout this project: it holds -1, 0 and 1, mostly 0.
"""

import numpy as np


def pack(state: np.ndarray) -> np.ndarray:
    """int8 [..., n] of -1, 0 and 1 -> uint8 [..., n / 4]: one bit where it is 1, then one bit where it is -1.

    n: a multiple of 8.
    """
    return np.packbits(np.concatenate([state > 0, state < 0], axis=-1), axis=-1)


def entries(packed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What `pack` made, uint8 [states, n / 4] -> (row, column) int64 [entries, 2], value float32 [entries] not 0."""
    place = np.flatnonzero(packed != 0)  # few bytes are not 0, and only those are unpacked
    which, bit = np.divmod(np.flatnonzero(np.unpackbits(packed.ravel()[place]) != 0), 8)
    row, bit = np.divmod(place[which] * 8 + bit, packed.shape[1] * 8)
    negative, column = np.divmod(bit, packed.shape[1] * 4)
    return np.stack([row, column], axis=1), (1 - 2 * negative).astype(np.float32)
