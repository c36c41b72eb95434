"""Difference pictures in little memory: two bits a pixel, and only the few that are not zero when it comes to work.

An integer state (int8) is taken for such a picture throughout this project: it holds -1, 0 and 1, mostly 0.
"""

import numpy as np


def pack(state: np.ndarray) -> np.ndarray:
    """int8 [..., n] of -1, 0 and 1 -> uint8 [..., n / 4]: one bit where it is 1, then one bit where it is -1.

    n: a multiple of 8.
    """
    return np.packbits(np.concatenate([state > 0, state < 0], axis=-1), axis=-1)


def kept(state: np.ndarray) -> np.ndarray:
    """A state as buffers keep it: a picture packed, anything else as it is."""
    return pack(state) if getattr(state, "dtype", None) == np.int8 else state


def batch(states: list):
    """What a buffer holds as one batch: float32 [batch, n] of states, scipy.sparse [batch, n] of packed pictures."""
    states = np.array(states)
    return unpack(states) if states.dtype == np.uint8 else states.astype(np.float32, copy=False)


def unpack(packed: np.ndarray):
    """What `pack` made, uint8 [batch, n / 4] -> float32 [batch, n], a scipy.sparse.csr_array."""
    from scipy.sparse import csr_array

    place = np.flatnonzero(packed != 0)  # few bytes are not 0, and only those are unpacked
    which, bit = np.divmod(np.flatnonzero(np.unpackbits(packed.ravel()[place]) != 0), 8)
    row, bit = np.divmod(place[which] * 8 + bit, packed.shape[1] * 8)
    negative, column = np.divmod(bit, packed.shape[1] * 4)
    sign = (1 - 2 * negative).astype(np.float32)
    return csr_array((sign, (row, column)), shape=(len(packed), packed.shape[1] * 4))
