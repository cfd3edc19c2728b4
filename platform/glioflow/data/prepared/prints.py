"""Prints of slices: hashes of their fine structure, and short signatures for finding copies."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

# Bits of a signature. The second half equals the first half of the mirrored slice's signature.
BITS = 1024
_SIDE, _BLUR = 32, 2.0
_MIN_CONTRAST = 0.25

Hashes = NDArray[np.float32]
Signatures = NDArray[np.uint8]


def hash_slices(image: NDArray[np.generic]) -> tuple[Hashes, NDArray[np.int64]]:
    """Return the hash of each slice of an image (S, h, w, C) that is not blank, and its index.

    A hash is the slice shrunk to 32 x 32 by area, minus its blur, scaled to length 1. The product of two hashes is the
    correlation of the slices' fine structure; the coarse structure of all heads is similar.
    """
    import cv2

    small = [cv2.resize(np.asarray(plane, np.float32), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA) for plane in image]
    flat = np.stack([(plane - cv2.GaussianBlur(plane, (0, 0), _BLUR)).ravel() for plane in small])
    lengths = np.linalg.norm(flat, axis=1)
    kept = np.flatnonzero((lengths > _MIN_CONTRAST * lengths.max(initial=0)) & (lengths > 1e-6))
    return np.asarray(flat[kept] / lengths[kept, None], dtype=np.float32), kept


def mirror(hashes: Hashes) -> Hashes:
    """Return the hashes of the mirrored slices."""
    return hashes.reshape(len(hashes), _SIDE, _SIDE, -1)[:, :, ::-1].reshape(len(hashes), -1)


def sign(hashes: Hashes) -> Signatures:
    """Return the signature of each hash, (N, BITS / 8): on which side of random planes it lies.

    Two hashes of correlation c differ in a share arccos(c) / pi of the bits. Source: Charikar 2002.
    """
    return np.packbits(hashes @ _planes(hashes.shape[1]) > 0, axis=1)


def mirror_signatures(signatures: Signatures) -> Signatures:
    """Return the signatures of the mirrored slices."""
    return np.roll(signatures, BITS // 16, axis=1)


@lru_cache(maxsize=2)
def _planes(size: int) -> Hashes:
    first = np.random.default_rng(0).standard_normal((BITS // 2, size), dtype=np.float32)
    return np.ascontiguousarray(np.concatenate([first, mirror(first)]).T)
