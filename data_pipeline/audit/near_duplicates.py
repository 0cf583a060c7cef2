"""Near-duplicate images across splits, by a 64-bit perceptual hash.

Aligned faces resemble each other: a hash of the plain picture mostly says "a face". So the mean
picture of all images is taken away first, and the hash holds the signs of the lowest 64 frequencies
of what remains. Pairs within `RADIUS` bits are found without comparing all pairs: of four bands of
16 bits, one differs in at most one bit if the whole differs in at most seven. What the hash
proposes is confirmed by the correlation of the two thumbnails.

Dimension letters: M images, S side of a thumbnail, F frequencies (64), P pairs.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd

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

    `mean_SS` is that of the standardised thumbnails of all images that are compared. The result,
    uint64 [M], does not depend on brightness and contrast.
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
) -> pd.DataFrame:
    """Finds each image of the second set that shows almost the same as one of the first.

    The thumbnails are grey, none of them flat. Of more than four images with one and the same hash,
    four are compared: a still video counts with all its frames where it stands second.

    Returns:
        A row for each such image, with its most similar image of the first set: columns `first` and
        `second`, indices into the sets, the latter ascending; `bits`, by which the hashes differ;
        `correlation` of the thumbnails, float32.
    """
    total_SS = np.zeros(first_MSS.shape[1:], np.float64)
    for thumbnails in (first_MSS, second_MSS):
        for start in range(0, len(thumbnails), 4096):
            total_SS += standardise(thumbnails[start : start + 4096]).sum(axis=0)
    mean_SS = (total_SS / max(len(first_MSS) + len(second_MSS), 1)).astype(np.float32)
    hash_a, group_a = np.unique(perceptual_hashes(first_MSS, mean_SS), return_inverse=True)
    hash_b, group_b = np.unique(perceptual_hashes(second_MSS, mean_SS), return_inverse=True)
    a_P, b_P = close_pairs(hash_a, hash_b)
    bits_P = np.bitwise_count(hash_a[a_P] ^ hash_b[b_P]).astype(np.int64)
    hashes = pd.DataFrame({"group_a": a_P, "group_b": b_P, "bits": bits_P})
    first = pd.DataFrame({"group_a": group_a, "first": np.arange(len(group_a))})
    second = pd.DataFrame({"group_b": group_b, "second": np.arange(len(group_b))})
    pairs = hashes.merge(first.groupby("group_a").head(_PER_HASH)).merge(second)
    a_P, b_P = pairs["first"].to_numpy(), pairs["second"].to_numpy()
    correlation_P = np.empty(len(pairs), np.float32)
    for start in range(0, len(pairs), 16384):
        part = slice(start, start + 16384)
        product = standardise(first_MSS[a_P[part]]) * standardise(second_MSS[b_P[part]])
        correlation_P[part] = product.mean(axis=(1, 2))
    pairs = pairs.assign(correlation=correlation_P)[correlation_P >= LEAST_CORRELATION]
    best = pairs.sort_values(["second", "correlation", "first"], ascending=[True, False, True])
    columns = ["first", "second", "bits", "correlation"]
    return best.drop_duplicates("second")[columns].reset_index(drop=True)


def close_pairs(
    first: npt.NDArray[np.uint64], second: npt.NDArray[np.uint64], radius: int = RADIUS
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Index pairs of 64-bit numbers, distinct in each set, that differ in at most `radius` bits.

    int64 [P] into `first` and into `second`, each pair once. By banding, so `radius` is at most 7.
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
                # 0 to n - 1 for each count n, one behind the other
                nth = np.arange(len(source)) - np.repeat(
                    np.cumsum(count[rows]) - count[rows], count[rows]
                )
                target = order[low[source] + nth]
                close = np.bitwise_count(first[target] ^ second[source]) <= radius
                found.append(target[close] * len(second) + source[close])
    code = np.unique(np.concatenate(found))
    return code // max(len(second), 1), code % max(len(second), 1)
