// Finds faces with their meshes, and follows them from frame to frame, as `faces.detect`.

import {
  CUT_SIZE, around, aroundCandidate, extent, inverted, middle, moved,
} from "./align.js";
import { cut } from "./pixels.js";
import { candidatesOf } from "./search.js";

const LEAST_SCORE = 0.5;
const SMALLEST_FACE = 32;  // pixels
const APART = 0.8;
const MARGIN = 0.8;
const PASSES = 2;
export const REACH = 0.9;
const GROWTH = 1.6;

const [LEFT_EYE, RIGHT_EYE, NOSE_TIP, MOUTH] = [[33, 133], [362, 263], 1, [61, 291]];

/** The faces of a picture, the largest first: `FaceFinder.find`. */
export async function find(picture, minFace, networks) {
  const least = minFace === null ? SMALLEST_FACE : MARGIN * minFace;
  const candidates = await candidatesOf(picture, minFace, networks.detect);
  let maps = candidates.map(aroundCandidate);
  let faces = [];
  for (let pass = 0; pass < PASSES; pass++) {
    faces = [];
    for (const map of maps) {
      const face = await look(picture, map, networks.mesh);
      const isSeen = face.score >= LEAST_SCORE && face.box[3] - face.box[1] >= least;
      if (isSeen && isNew(face, faces)) faces.push(face);
    }
    maps = faces.map((face) => around(face.mesh));
  }
  return faces.sort((a, b) => b.size - a.size);
}

/** Where faces of the frame before are in this one; null for a lost one: `FaceFinder.follow`. */
export async function follow(picture, before, networks) {
  const seen = [];
  for (const [place, face] of before.entries()) {
    seen.push({ place, face: await look(picture, around(face.mesh), networks.mesh) });
  }
  const result = before.map(() => null);
  const kept = [];
  for (const { place, face } of seen.sort((a, b) => b.face.score - a.face.score)) {
    const [small, large] = [face.size, before[place].size].sort((a, b) => a - b);
    const isKept = face.score >= LEAST_SCORE && distance(before[place], face) <= REACH
      && large / Math.max(small, 1e-9) <= GROWTH && isNew(face, kept);
    if (!isKept) continue;
    kept.push(face);
    result[place] = face;
  }
  return result;
}

/** How far apart two faces are, in sizes of a face. */
export const distance = (one, other) =>
  (2 * apart(one, other)) / Math.max(one.size + other.size, 1e-9);

const apart = (one, other) =>
  Math.hypot(one.centre[0] - other.centre[0], one.centre[1] - other.centre[1]);

const isNew = (face, faces) => faces.every((other) =>
  apart(face, other) > APART * Math.max(face.size, other.size));

/** The face in one cut, whatever it shows: `mesh.find_points` and `face_of`. */
async function look(picture, map, network) {
  const inverse = inverted(map);
  const found = await network(cut(picture, inverse, CUT_SIZE));
  const mesh = new Float32Array(found.mesh.length);
  const scale = Math.hypot(inverse[0][0], inverse[1][0]);
  for (let place = 0; place < mesh.length; place += 3) {
    const [x, y, depth] = found.mesh.subarray(place, place + 3);
    mesh.set([...moved(inverse, x, y), depth * scale], place);
  }
  const place = (point) => [mesh[3 * point], mesh[3 * point + 1]];
  const landmarks = [
    middle(LEFT_EYE.map(place)), middle(RIGHT_EYE.map(place)), place(NOSE_TIP), ...MOUTH.map(place),
  ];
  const centre = middle(landmarks);
  const spread = landmarks.reduce((sum, [x, y]) =>
    sum + (x - centre[0]) ** 2 + (y - centre[1]) ** 2, 0) / landmarks.length;
  return {
    score: found.score[0],
    mesh,
    points: found.points,
    box: extent(mesh),
    landmarks,
    centre,
    size: 2 * Math.sqrt(spread),
    pose: pose(found.turn, map),
  };
}

/** Yaw, pitch and roll in degrees of a head whose turn in a cut is known: `geometry.pose`. */
function pose(turn, [[a, b]]) {
  const length = Math.hypot(a, b);
  const [cos, sin] = [a / length, b / length];
  // rows of the turn in the picture, from those in the cut
  const [x, y, z] = [0, 1, 2].map((column) => {
    const [along, down, away] = [turn[column], turn[3 + column], turn[6 + column]];
    return [cos * along - sin * down, sin * along + cos * down, away];
  });
  const forward = z.map((part) => -part);
  const angles = [
    Math.atan2(forward[0], -forward[2]),
    Math.atan2(-forward[1], Math.hypot(forward[0], forward[2])),
    Math.atan2(x[1], y[1]),
  ];
  return angles.map((angle) => (angle * 180) / Math.PI);
}
