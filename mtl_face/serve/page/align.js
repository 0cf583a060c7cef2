// Similarities of the plane, [[a, b, c], [d, e, f]], as `faces.align` and `faces.mesh` have them.

export const CROP_SIZE = 112;
export const CUT_SIZE = 192;

/** Where the landmarks go in a crop. */
export const TEMPLATE = [
  [38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655],
  [70.7299, 92.2041],
];

const CUT_FACTOR = 1.5;  // side of the mesh network's cut, in the face's larger sides
const OUTER_EYES = [33, 263];  // points of the mesh

export const mean = (numbers) => numbers.reduce((a, b) => a + b, 0) / numbers.length;

/** The middle of places [x, y]. */
export const middle = (places) => [0, 1].map((axis) => mean(places.map((place) => place[axis])));

/** Least-squares similarity between two lists of places: `align.similarity`. */
export function similarity(source, target) {
  const [from, to] = [middle(source), middle(target)];
  let [spread, along, aside] = [0, 0, 0];
  source.forEach(([x, y], place) => {
    const [u, v] = [x - from[0], y - from[1]];
    const [p, q] = target[place];
    spread += u * u + v * v;
    along += u * p + v * q;
    aside += u * q - v * p;
  });
  const [a, b] = [along / spread, aside / spread];
  return [
    [a, -b, to[0] - a * from[0] + b * from[1]], [b, a, to[1] - b * from[0] - a * from[1]],
  ];
}

export function inverted([[a, b, c], [d, e, f]]) {
  const size = a * e - b * d;
  const [p, q, r, s] = [e / size, -b / size, -d / size, a / size];
  return [[p, q, -(p * c + q * f)], [r, s, -(r * c + s * f)]];
}

export const moved = ([[a, b, c], [d, e, f]], x, y) => [a * x + b * y + c, d * x + e * y + f];

/** The map that cuts a square around a centre, in which `eyes` is horizontal: `mesh.upright`. */
export function upright(centre, side, eyes) {
  const length = Math.max(Math.hypot(...eyes), 1e-9);
  const scale = CUT_SIZE / Math.max(side, 1e-6);
  const [a, b] = [(scale * eyes[0]) / length, (scale * eyes[1]) / length];
  const half = (CUT_SIZE - 1) / 2;
  return [
    [a, b, half - a * centre[0] - b * centre[1]], [-b, a, half + b * centre[0] - a * centre[1]],
  ];
}

/** Left, top, right, bottom of the points of a mesh, of which x, y and depth follow each other. */
export function extent(mesh) {
  const box = [Infinity, Infinity, -Infinity, -Infinity];
  for (let place = 0; place < mesh.length; place += 3) {
    const [x, y] = [mesh[place], mesh[place + 1]];
    box[0] = Math.min(box[0], x);
    box[1] = Math.min(box[1], y);
    box[2] = Math.max(box[2], x);
    box[3] = Math.max(box[3], y);
  }
  return box;
}

/** The map to the mesh network's cut around points that were found before: `mesh.around`. */
export function around(mesh) {
  const [left, top, right, bottom] = extent(mesh);
  const [one, other] = OUTER_EYES.map((point) => mesh.subarray(3 * point, 3 * point + 2));
  const eyes = [other[0] - one[0], other[1] - one[1]];
  const centre = [(left + right) / 2, (top + bottom) / 2];
  return upright(centre, CUT_FACTOR * Math.max(right - left, bottom - top), eyes);
}

/** The map to the cut of a candidate of the detector: `detect._cut`. */
export function aroundCandidate({ box: [left, top, right, bottom], points }) {
  const eyes = [points[2] - points[0], points[3] - points[1]];
  const centre = [(left + right) / 2 - 0.5, (top + bottom) / 2 - 0.5];
  return upright(centre, CUT_FACTOR * Math.max(right - left, bottom - top), eyes);
}
