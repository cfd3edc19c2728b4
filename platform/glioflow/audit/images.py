"""Slices that are equal, or nearly equal, in two parts of a split."""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from glioflow import quantities
from glioflow.audit.leaks import PARTS, Leak
from glioflow.data.prepared.cohort import PreparedCase
from glioflow.data.prepared.prints import BITS, Hashes, Signatures, hash_slices, mirror, mirror_signatures
from glioflow.data.splits import Split

# No two slices of two persons reach .93 on 65 LGG patients, or .97 on synthetic ones. Nine in ten copies that were made
# brighter, noisier, smaller or JPEG stay above this likeness; exact copies have 1.
MIN_LIKENESS = 0.975
# Slices whose signatures agree in four bytes, in one of 384 choices of four, are compared. Less than one pair in a
# million of exactly MIN_LIKENESS agrees in no choice, and of pairs with a likeness of .3 three in 100,000 agree in one.
_TABLES, _KEY_BYTES = 384, 4
# Cases whose hashes are at hand while those under suspicion are compared.
_HASHED = 64

Pairs = NDArray[np.int64]


def find_image_leaks(split: Split, cases: Sequence[PreparedCase], *, likeness: float = MIN_LIKENESS) -> list[Leak]:
    """Return the pairs of cases in two parts of the split that share a slice, by its hash; mirrored copies count too.

    Only slices whose signatures, which were made at preparation, agree in some bits are compared: the time grows as
    the number of slices does, not as its square.

    Args:
        split: The split to check.
        cases: The cases of the split.
        likeness: Correlation of the hashes of two slices from which on they count as the same.
    """
    part_of = {case_id: part for part in PARTS for case_id in getattr(split, part)}
    listed = [*{case.record.id: case for case in cases if case.record.id in part_of}.values()]
    parts = np.array([PARTS.index(part_of[case.record.id]) for case in listed], dtype=np.int64)

    @lru_cache(maxsize=_HASHED)
    def hashes_of(number: int) -> tuple[Hashes, NDArray[np.int64]]:
        return hash_slices(np.asarray(listed[number].image))

    leaks = []
    for number, earlier in _suspects([case.signatures() for case in listed], parts, likeness):
        shared = _compare(hashes_of, number, earlier, likeness)
        if shared is not None:
            case_id, other = listed[number].record.id, listed[earlier].record.id
            index, other_index, highest, count = shared
            value = (
                f"{other} ({part_of[other]}) slice {other_index}, {case_id} ({part_of[case_id]}) slice {index}: "
                f"likeness {highest:.3f}; {quantities.count(count, 'slice')} in all"
            )
            leaks.append(Leak(rule="the same image in two parts of the split", value=value))
    return leaks


def _compare(
    hashes_of: Callable[[int], tuple[Hashes, NDArray[np.int64]]], number: int, earlier: int, likeness: float
) -> tuple[int, int, float, int] | None:
    """Return the most alike slices of two cases, how alike they are, and how many slices of the first have a copy."""
    (hashes, indices), (others, other_indices) = hashes_of(number), hashes_of(earlier)
    alike = np.maximum(hashes @ others.T, mirror(hashes) @ others.T)
    if not (alike >= likeness).any():
        return None
    row, column = np.unravel_index(alike.argmax(), alike.shape)
    count = int((alike >= likeness).any(axis=1).sum())
    return int(indices[row]), int(other_indices[column]), float(alike.max()), count


def _suspects(signatures: Sequence[Signatures], parts: NDArray[np.int64], likeness: float) -> list[tuple[int, int]]:
    """Return the pairs of cases of two parts that may share a slice: the later part's first, in the cases' order."""
    owners = np.repeat(np.arange(len(signatures)), [len(each) for each in signatures])
    if not len(owners):
        return []
    plain = np.concatenate(signatures)
    both = np.concatenate([plain, mirror_signatures(plain)])
    columns = np.ascontiguousarray(both.T)
    share = math.acos(likeness) / math.pi
    most_bits = BITS * share + 6 * math.sqrt(BITS * share * (1 - share))
    rng, codes = np.random.default_rng(0), np.zeros(0, dtype=np.int64)
    for _ in range(_TABLES):
        one, other = _in_one_bucket(columns[rng.choice(len(columns), _KEY_BYTES, replace=False)], owners, parts)
        near = np.bitwise_count(both[one] ^ both[other]).sum(axis=1, dtype=np.int64) <= most_bits
        first, second = owners[one[near] % len(owners)], owners[other[near] % len(owners)]
        later, earlier = np.where(parts[first] > parts[second], (first, second), (second, first))
        codes = np.unique(np.concatenate([codes, later * len(signatures) + earlier]))
    pairs = [divmod(int(code), len(signatures)) for code in codes]
    return sorted(pairs, key=lambda pair: (pair[0], parts[pair[1]], pair[1]))


def _in_one_bucket(chosen: Signatures, owners: Pairs, parts: NDArray[np.int64]) -> tuple[Pairs, Pairs]:
    """Return all pairs of signatures that agree in the chosen bytes, (bytes, N), and whose owners are in two parts.

    The second half of the signatures is of mirrored slices. Two of those are as alike as the slices themselves, and are
    left out.
    """
    keys = np.zeros(chosen.shape[1], dtype=np.uint64)
    for each in chosen:
        keys = keys << np.uint64(8) | each
    keys = np.sort(keys << np.uint64(32) | np.arange(len(keys), dtype=np.uint64))  # much faster than argsort
    ordered, count = keys >> np.uint64(32), len(owners)
    at, distance, ones, others = np.flatnonzero(ordered[:-1] == ordered[1:]), 1, [], []
    while len(at):
        one, other = ((keys[position] & np.uint64(0xFFFFFFFF)).astype(np.int64) for position in (at, at + distance))
        fits = parts[owners[one % count]] != parts[owners[other % count]]
        fits &= (one < count) | (other < count)
        ones.append(one[fits])
        others.append(other[fits])
        distance += 1
        at = at[at + distance < len(keys)]
        at = at[ordered[at] == ordered[at + distance]]
    none = np.zeros(0, dtype=np.int64)
    return np.concatenate([none, *ones]), np.concatenate([none, *others])
