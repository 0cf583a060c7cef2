// Where faces may be in a picture: the detector on sizes and parts of it, as `faces.search`.

import { black, cropped, paste, resized } from "./pixels.js";

export const TILE = 256;
const TRAINED = 128;  // side of the pictures that the detector was trained on
const LEAST_SCORE = 0.4;
const LEAST_SHARE = 0.16;
const STEP = 4;
const TILE_OVERLAP = 64;
const GAP = 24;
const OVERLAP = 0.3;
const REDUCING_GAP = 1.4;
const POINTS = 12;  // numbers of a candidate's six key points

/**
 * Candidates of a picture, best first: {score, box: [4], points: [12]} in its pixels.
 *
 * `detect` takes the bytes of a tile and promises {score, box, points} of all anchors; `minFace` is
 * the height of the smallest faces that are looked for, null: 8 % of the longer side.
 */
export async function candidatesOf(picture, minFace, detect) {
  const found = [];
  for (const tile of tilesOf(picture, minFace)) {
    found.push(...inParts(tile, await detect(tile.picture.data)));
  }
  return suppress(found);
}

/** Tiles that together show faces of all heights: {picture, parts}. */
export function* tilesOf(picture, minFace) {
  const long = Math.max(picture.width, picture.height);
  const finest = minFace === null ? (2 * TRAINED) / long
    : Math.max((LEAST_SHARE * TRAINED) / minFace, TRAINED / long);
  const scales = [finest];
  while (scales.at(-1) * long > TRAINED) {
    scales.push(Math.max(scales.at(-1) / STEP, TRAINED / long));
  }
  const small = [];
  let scaled = picture;
  for (const factor of scales) {
    const [width, height] = [picture.width, picture.height].map((side) =>
      Math.max(1, rounded(side * factor)));
    scaled = resized(scaled, width, height, REDUCING_GAP);
    const scale = [picture.width / width, picture.height / height];
    if (Math.max(width, height) <= TILE) {
      small.push({ picture: scaled, scale });
      continue;
    }
    for (const top of starts(height)) {
      for (const left of starts(width)) {
        const part = { place: [0, 0], size: [TILE, TILE], start: [left, top], scale };
        yield { picture: cropped(scaled, left, top, TILE, TILE), parts: [part] };
      }
    }
  }
  while (small.length) yield packed(small);
}

/** Rounded as Python does it: halves to the even number. */
function rounded(number) {
  const below = Math.floor(number);
  if (number - below !== 0.5) return Math.round(number);
  return below % 2 ? below + 1 : below;
}

/** Where tiles begin along a side. */
function starts(side) {
  const count = Math.max(1, Math.ceil((side - TILE_OVERLAP) / (TILE - TILE_OVERLAP)));
  const last = Math.max(side - TILE, 0);
  return Array.from({ length: count }, (_, place) =>
    (place && place === count - 1 ? last : rounded(place * (last / Math.max(count - 1, 1)))));
}

/** A tile with the first pictures of a list, as many as fit side by side; takes them out. */
function packed(pictures) {
  const canvas = black(TILE, TILE);
  const parts = [];
  let [right, bottom] = [0, 0];
  while (pictures.length) {
    const { picture, scale } = pictures[0];
    let place;
    if (!parts.length) place = [0, 0];
    else if (bottom + GAP + picture.height <= TILE) place = [0, bottom + GAP];
    else if (right + GAP + picture.width <= TILE && parts.length === 1) place = [right + GAP, 0];
    else break;
    paste(canvas, picture, ...place);
    parts.push({ place, size: [picture.width, picture.height], start: [0, 0], scale });
    right ||= picture.width;
    bottom = place[1] + picture.height;
    pictures.shift();
  }
  return { picture: canvas, parts };
}

/** What the detector found in each part of a tile, in pixels of the picture. */
function* inParts({ parts }, { score, box, points }) {
  const sure = [...score.keys()].filter((anchor) => score[anchor] >= LEAST_SCORE);
  for (const { place, size, start, scale } of parts) {
    const back = (share, axis) => (share * TILE + start[axis] - place[axis]) * scale[axis];
    for (const anchor of sure) {
      const own = box.subarray(4 * anchor, 4 * anchor + 4);
      const isInside = [0, 1].every((axis) => {
        const centre = (own[axis] * TILE + own[axis + 2] * TILE) / 2;
        return centre >= place[axis] && centre <= place[axis] + size[axis];
      });
      if (!isInside) continue;
      yield {
        score: score[anchor],
        box: Array.from(own, (share, number) => back(share, number % 2)),
        points: Array.from(points.subarray(POINTS * anchor, POINTS * (anchor + 1)),
          (share, number) => back(share, number % 2)),
      };
    }
  }
}

/** Overlapping candidates merged to their mean, weighted by score; best first. */
export function suppress(found) {
  const result = [];
  let rest = [...found].sort((a, b) => b.score - a.score);
  while (rest.length) {
    const [best] = rest;
    const isSame = (other) => other === best || shared(best.box, other.box) > OVERLAP;
    const same = rest.filter(isSame);
    rest = rest.filter((other) => !isSame(other));
    const sum = same.reduce((all, each) => all + each.score, 0);
    const merged = (name) => best[name].map((_, place) =>
      same.reduce((all, each) => all + (each.score / sum) * each[name][place], 0));
    result.push({ score: best.score, box: merged("box"), points: merged("points") });
  }
  return result;
}

/** Intersection over union. */
function shared(one, other) {
  const area = (left, top, right, bottom) =>
    Math.max(right - left, 0) * Math.max(bottom - top, 0);
  const both = area(Math.max(one[0], other[0]), Math.max(one[1], other[1]),
    Math.min(one[2], other[2]), Math.min(one[3], other[3]));
  return both / Math.max(area(...one) + area(...other) - both, 1e-9);
}
