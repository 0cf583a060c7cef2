"""Near-duplicate images across splits, by a 64-bit perceptual hash.

Aligned faces resemble each other: a hash of the plain picture mostly says "a face". So the mean
picture of all images is taken away first, and the hash holds the signs of the lowest 64 frequencies
of what remains. Pairs within `RADIUS` bits are found without comparing all pairs: of four bands of
16 bits, one differs in at most one bit if the whole differs in at most seven. What the hash
proposes is confirmed by the correlation of the two thumbnails.

Dimension letters: M images, S side of a thumbnail, F frequencies (64), P pairs.
"""

import dataclasses

import numpy as np
import numpy.typing as npt

RADIUS = 7
"""Bits in which hashes of near-duplicates may differ: the most that the bands are complete for."""

LEAST_CORRELATION = 0.975
"""Correlation of the thumbnails, from which two images count as near-duplicates.

On rendered faces, aligned crops of different people reach 0.951; the same crop shifted by a pixel
or stored again at JPEG quality 20 keeps 0.979 or more.
"""

FLAT_BELOW = 3.0
"""Standard deviation of a thumbnail, in grey levels, below which a picture shows nothing."""

_BANDS = 4
_BAND_BITS = 16
_PER_HASH = 4  # images that share a hash, of which each is compared with the other split's
_PAIRS_AT_ONCE = 4_000_000


@dataclasses.dataclass(frozen=True, eq=False)
class NearPairs:
    """Images of a second set, each with its most similar image of the first.

    Attributes:
        first: int64 [P], index into the first set.
        second: int64 [P], index into the second set, ascending, each once.
        bits: int64 [P], differing bits of the hashes.
        correlation: float32 [P], of the thumbnails.
    """

    first: npt.NDArray[np.int64]
    second: npt.NDArray[np.int64]
    bits: npt.NDArray[np.int64]
    correlation: npt.NDArray[np.float32]


def is_flat(thumbnail_MSS: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Which pictures are nearly of one colour, bool [M]; their hashes would mean nothing."""
    return thumbnail_MSS.std(axis=(1, 2)) < FLAT_BELOW


def standardise(thumbnail_MSS: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Thumbnails with mean 0 and variance 1 each, float32 [M, S, S]; a flat one becomes zero."""
    value_MSS = thumbnail_MSS.astype(np.float32)
    value_MSS -= value_MSS.mean(axis=(1, 2), keepdims=True)
    spread_M11 = value_MSS.std(axis=(1, 2), keepdims=True)
    return value_MSS / np.maximum(spread_M11, 1e-6)


def perceptual_hashes(
    thumbnail_MSS: npt.NDArray[np.uint8], mean_SS: npt.NDArray[np.float32]
) -> npt.NDArray[np.uint64]:
    """Signs of the 64 lowest frequencies, without the constant, of each picture less the mean.

    `mean_SS` is that of the standardised thumbnails of all images that are compared.

    Returns:
        uint64 [M]; brightness and contrast make no difference.
    """
    size = thumbnail_MSS.shape[1]
    place_S = np.arange(size)
    cosine_SS = np.cos(np.pi / size * (place_S[None, :] + 0.5) * place_S[:, None])
    order = sorted(np.ndindex(size, size), key=lambda uv: (uv[0] + uv[1], uv[0]))[1:65]
    rows, columns = np.array(order).T
    weight_F = np.uint64(1) << np.arange(64, dtype=np.uint64)
    hash_M = np.empty(len(thumbnail_MSS), np.uint64)
    for start in range(0, len(thumbnail_MSS), 4096):
        part = slice(start, start + 4096)
        rest_MSS = standardise(thumbnail_MSS[part]) - mean_SS[None]
        frequency_MSS = cosine_SS @ rest_MSS @ cosine_SS.T
        bit_MF = frequency_MSS[:, rows, columns] > 0
        hash_M[part] = np.where(bit_MF, weight_F[None], np.uint64(0)).sum(axis=1, dtype=np.uint64)
    return hash_M


def near_duplicates(
    first_MSS: npt.NDArray[np.uint8], second_MSS: npt.NDArray[np.uint8]
) -> NearPairs:
    """Finds each image of the second set that shows almost the same as one of the first.

    The thumbnails are grey, none of them flat. Of more than four images with one and the same hash,
    four are compared: a still video counts with all its frames where it stands second.
    """
    if not len(first_MSS) or not len(second_MSS):
        return _confirmed(first_MSS, second_MSS, *(np.zeros(0, np.int64),) * 3)
    total_SS = np.zeros(first_MSS.shape[1:], np.float64)
    for thumbnails in (first_MSS, second_MSS):
        for start in range(0, len(thumbnails), 4096):
            total_SS += standardise(thumbnails[start : start + 4096]).sum(axis=0)
    mean_SS = (total_SS / (len(first_MSS) + len(second_MSS))).astype(np.float32)
    first = _Groups(perceptual_hashes(first_MSS, mean_SS))
    second = _Groups(perceptual_hashes(second_MSS, mean_SS))
    a_P, b_P = close_pairs(first.hashes, second.hashes)
    bits_P = np.bitwise_count(first.hashes[a_P] ^ second.hashes[b_P]).astype(np.int64)
    # From pairs of hashes to pairs of images.
    pair, a_P = first.members(a_P, at_most=_PER_HASH)
    b_P, bits_P = b_P[pair], bits_P[pair]
    pair, b_P = second.members(b_P)
    return _confirmed(first_MSS, second_MSS, a_P[pair], b_P, bits_P[pair])


def close_pairs(
    first: npt.NDArray[np.uint64], second: npt.NDArray[np.uint64], radius: int = RADIUS
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Index pairs of 64-bit numbers, distinct in each set, that differ in at most `radius` bits.

    Found by banding, so `radius` is at most 7.

    Returns:
        Indices into `first` and into `second`, int64 [P], each pair once.
    """
    if radius >= 2 * _BANDS:
        raise ValueError(f"radius {radius}: the bands find at most {2 * _BANDS - 1}")
    flips = np.array([0, *(1 << bit for bit in range(_BAND_BITS))], np.uint64)
    found = [np.zeros(0, np.int64)]
    for band in range(_BANDS):
        shift = np.uint64(band * _BAND_BITS)
        mask = np.uint64((1 << _BAND_BITS) - 1)
        key_first = (first >> shift) & mask
        key_second = (second >> shift) & mask
        order = np.argsort(key_first, kind="stable")
        sorted_keys = key_first[order]
        for flip in flips:
            low = np.searchsorted(sorted_keys, key_second ^ flip, side="left")
            count = np.searchsorted(sorted_keys, key_second ^ flip, side="right") - low
            # In parts, so that a crowded band costs time and not memory.
            part = np.cumsum(count) // _PAIRS_AT_ONCE
            for number in np.unique(part[count > 0]):
                rows = np.flatnonzero((part == number) & (count > 0))
                source = np.repeat(rows, count[rows])
                target = order[low[source] + _places(count[rows])]
                close = np.bitwise_count(first[target] ^ second[source]) <= radius
                found.append(target[close] * len(second) + source[close])
    code = np.unique(np.concatenate(found))
    return code // max(len(second), 1), code % max(len(second), 1)


class _Groups:
    """The distinct values of a hash, and which images have each."""

    def __init__(self, hash_M: npt.NDArray[np.uint64]) -> None:
        self.hashes, group_M, self._counts = np.unique(
            hash_M, return_inverse=True, return_counts=True
        )
        self._order = np.argsort(group_M, kind="stable")
        self._start = np.cumsum(self._counts) - self._counts

    def members(
        self, group_P: npt.NDArray[np.int64], at_most: int | None = None
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The images of each group, the first `at_most`: index into `group_P`, and image."""
        count_P = np.minimum(self._counts, at_most)[group_P] if at_most else self._counts[group_P]
        source = np.repeat(np.arange(len(group_P)), count_P)
        return source, self._order[self._start[group_P[source]] + _places(count_P)]


def _places(count_P: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """0 to n - 1 for each count n, one behind the other."""
    return np.arange(count_P.sum()) - np.repeat(np.cumsum(count_P) - count_P, count_P)


def _confirmed(
    first_MSS: npt.NDArray[np.uint8],
    second_MSS: npt.NDArray[np.uint8],
    a_P: npt.NDArray[np.int64],
    b_P: npt.NDArray[np.int64],
    bits_P: npt.NDArray[np.int64],
) -> NearPairs:
    correlation_P = np.empty(len(a_P), np.float32)
    for start in range(0, len(a_P), 16384):
        part = slice(start, start + 16384)
        product = standardise(first_MSS[a_P[part]]) * standardise(second_MSS[b_P[part]])
        correlation_P[part] = product.mean(axis=(1, 2))
    keep_P = np.flatnonzero(correlation_P >= LEAST_CORRELATION)
    order_P = keep_P[np.lexsort((a_P[keep_P], -correlation_P[keep_P], b_P[keep_P]))]
    _, best = np.unique(b_P[order_P], return_index=True)
    rows = order_P[best]
    return NearPairs(a_P[rows], b_P[rows], bits_P[rows], correlation_P[rows])
