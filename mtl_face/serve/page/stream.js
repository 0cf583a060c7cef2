// From pictures to rows of the table, as `inference.stream`: faces, who they are, and answers.

import { CROP_SIZE, TEMPLATE, inverted, similarity } from "./align.js";
import { Baselines, blended } from "./baseline.js";
import { REACH, distance, find, follow } from "./detect.js";
import { resized, warped } from "./pixels.js";
import { isCut, view } from "./shot.js";

const PHOTO_FACE = 40;  // height in pixels of the smallest faces that are looked for in photos
const SEARCH_EVERY = 8;  // frames
const PATIENCE = 15;  // frames that a lost face is waited for
const SMALLEST = 40;  // height in pixels
const LEAST_SHARPNESS = 0.025;
const MOST_TURNED = 30;  // degrees
const MOST_OUTSIDE = 0.1;
const DIGITS = 1e4;

/** The answer to a photo: {kind, width, height, rows}. */
export async function photo(picture, source, networks, about) {
  const faces = await find(picture, PHOTO_FACE, networks);
  faces.forEach((face, place) => { face.person = place + 1; });
  return {
    kind: "photo", width: picture.width, height: picture.height,
    rows: await rows(picture, faces, { source, frame: 1 }, new Asked(networks, about)),
  };
}

/** What is asked of a network for each face. */
class Asked {
  #baselines = new Baselines();

  constructor(networks, about) {
    this.networks = networks;
    this.about = about;
  }

  /** Columns of the answers to a face. */
  async answers(picture, face) {
    const { about, networks } = this;
    let crop = null;
    const cropped = () => {
      const small = () => cropOf(picture, face, TEMPLATE, CROP_SIZE);
      return (crop ??= resized(small(), about.crop_size, about.crop_size).data);
    };
    let answers = await networks.answer(face, cropped, null);
    if (!about.baselines.length) return columns(answers, "", about);
    // Beside how the person looked at rest in earlier frames, as far as that is known.
    const { points, share } = this.#baselines.known(face.person);
    const neutral = answers.expression_probability[about.expressions.indexOf("Neutral")];
    this.#baselines.add(face.person, face.points, neutral);
    if (share && !Number.isNaN(neutral)) {
      const beside = await networks.answer(face, cropped, points);
      answers = blended(answers, beside, share, about.decisions);
    }
    return columns(answers, about.baselines[share ? 1 : 0], about);
  }
}

/** The frames of one camera. A person keeps a number while the face is followed. */
export class Stream {
  #source;
  #networks;
  #asked;
  #faces = [];
  #lost = [];  // {face, frame}
  #frame = 0;
  #searched = -Infinity;
  #persons = 0;
  #view = null;  // the newest frame that is not black, seen small

  constructor(source, networks, about) {
    this.#source = source;
    this.#networks = networks;
    this.#asked = new Asked(networks, about);
  }

  /** The answer to the next frame: {frame, time_ms, width, height, rows}. */
  async update(picture, time) {
    const frame = ++this.#frame;
    const before = this.#faces;
    const seen = view(picture);
    const found = this.#view && isCut(this.#view, seen) ? before.map(() => null)
      : await follow(picture, before, this.#networks);
    if (seen.some(Boolean)) this.#view = seen;
    found.forEach((face, place) => {
      if (face) face.person = before[place].person;
      else this.#lost.push({ face: before[place], frame });
    });
    this.#lost = this.#lost.filter((one) => frame - one.frame < PATIENCE);
    const faces = found.filter(Boolean);
    if (!faces.length || this.#lost.length || frame - this.#searched >= SEARCH_EVERY) {
      this.#searched = frame;
      for (const face of await find(picture, null, this.#networks)) {
        if (faces.some((other) => distance(face, other) <= REACH)) continue;
        face.person = this.#personOf(face);
        faces.push(face);
      }
    }
    this.#faces = faces.sort((a, b) => b.size - a.size);
    return {
      frame, time_ms: time, width: picture.width, height: picture.height,
      rows: await rows(
        picture, this.#faces, { source: this.#source, frame, time_ms: time }, this.#asked),
    };
  }

  /** The number of the nearest face that was lost, or a new one. */
  #personOf(face) {
    const near = this.#lost.filter((one) => distance(face, one.face) <= REACH)
      .sort((a, b) => distance(face, a.face) - distance(face, b.face));
    if (!near.length) return ++this.#persons;
    this.#lost.splice(this.#lost.indexOf(near[0]), 1);
    return near[0].face.person;
  }
}

/** A row for each face, or one of a frame without faces. */
async function rows(picture, faces, frame, asked) {
  const { about } = asked;
  const listed = (names) => about.columns.map((name, place) => {
    const value = name in names ? names[name] : about.empty[place];
    if (typeof value !== "number") return value;
    return Number.isFinite(value) ? Math.round(value * DIGITS) / DIGITS : null;
  });
  if (!faces.length) return [listed(frame)];
  const result = [];
  for (const face of faces) {
    const answers = await asked.answers(picture, face);
    result.push(listed({ ...frame, ...described(picture, face), ...answers }));
  }
  return result;
}

function cropOf(picture, face, template, size) {
  return warped(picture, inverted(similarity(face.landmarks, template)), size);
}

/** Columns of a face before it is answered. */
function described(picture, face) {
  const named = (names, values) => Object.fromEntries(names.map((name, at) => [name, values[at]]));
  return {
    person: face.person,
    status: status(picture, face),
    detection_score: face.score,
    ...named(["face_left", "face_top", "face_right", "face_bottom"], face.box),
    ...named(["left_eye", "right_eye", "nose_tip", "left_mouth_corner", "right_mouth_corner"]
      .flatMap((name) => [`${name}_x`, `${name}_y`]), face.landmarks.flat()),
    ...named(["yaw", "pitch", "roll"], face.pose),
  };
}

/** Columns of a network's answers, by the names of `export.whole_way`. */
function columns(answers, baseline, about) {
  const result = { baseline };
  const [valence, arousal] = answers.valence_arousal;
  Object.assign(result, { valence, arousal });
  if (answers.valence_arousal_std) {
    [result.valence_std, result.arousal_std] = answers.valence_arousal_std;
  }
  Object.keys(about.aus).forEach((name, place) => {
    const probability = answers.au_probability[place];
    result[`${name}_probability`] = probability;
    result[`${name}_present`] = Number.isNaN(probability) ? -1 : Number(answers.au_present[place]);
  });
  about.expressions.forEach((name, place) => {
    result[`expr_${name.toLowerCase()}_probability`] = answers.expression_probability[place];
  });
  result.expression = about.expressions[answers.expression[0]] ?? "";
  return result;
}

/** `ok`, or the reasons not to trust a face. */
function status(picture, { box, pose, landmarks }) {
  const [cosYaw, cosPitch] = pose.map((angle) => Math.cos((angle * Math.PI) / 180));
  const corner = CROP_SIZE / 4;
  const template = TEMPLATE.map(([x, y]) => [x - corner, y - corner]);
  const inner = cropOf(picture, { landmarks }, template, CROP_SIZE - 2 * corner);
  const reasons = {
    small: box[3] - box[1] < SMALLEST,
    blurred: sharpness(inner) < LEAST_SHARPNESS,
    turned: cosYaw * cosPitch < Math.cos((MOST_TURNED * Math.PI) / 180),
    "partly outside": outside(box, picture) > MOST_OUTSIDE,
  };
  return Object.keys(reasons).filter((name) => reasons[name]).join("+") || "ok";
}

/** Share of a box outside of a picture. */
function outside([left, top, right, bottom], { width, height }) {
  const wide = Math.min(right, width - 0.5) - Math.max(left, -0.5);
  const high = Math.min(bottom, height - 0.5) - Math.max(top, -0.5);
  const area = (right - left) * (bottom - top);
  return 1 - (Math.max(wide, 0) * Math.max(high, 0)) / Math.max(area, 1e-9);
}

/** Variance of the Laplacian of a grey picture, over its variance. */
function sharpness({ width, height, data }) {
  const grey = Float64Array.from({ length: width * height }, (_, place) =>
    (data[3 * place] + data[3 * place + 1] + data[3 * place + 2]) / 3);
  const laplacian = [];
  for (let row = 1; row < height - 1; row++) {
    for (let at = row * width + 1; at < (row + 1) * width - 1; at++) {
      laplacian.push(grey[at - width] + grey[at + width] + grey[at - 1] + grey[at + 1]
        - 4 * grey[at]);
    }
  }
  return variance(laplacian) / Math.max(variance(grey), 1e-9);
}

function variance(numbers) {
  const centre = numbers.reduce((a, b) => a + b, 0) / numbers.length;
  return numbers.reduce((sum, number) => sum + (number - centre) ** 2, 0) / numbers.length;
}
