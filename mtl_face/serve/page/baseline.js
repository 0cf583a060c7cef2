// A person's points at rest, from pictures in which the person may never be at rest, and answers
// beside them: as `inference.baseline` and `inference.stream`.

const FULL = 0.25;
const FEW = 1;
const LEAST_SHARE = 0.05;
const LEAST = 1e-7;  // of a probability, before its logarithm is taken

/** The points at rest of the persons of a camera, by their numbers. */
export class Baselines {
  #of = new Map();

  /** Takes a face, with the probability that it is neutral; NaN leaves it out. */
  add(person, points, neutral) {
    if (Number.isNaN(neutral)) return;
    if (!this.#of.has(person)) {
      this.#of.set(person, { p: 0, w: 0, ww: 0, wx: new Float64Array(points.length) });
    }
    const sums = this.#of.get(person);
    const weight = neutral ** 2;
    sums.p += neutral;
    sums.w += weight;
    sums.ww += weight ** 2;
    points.forEach((place, at) => { sums.wx[at] += weight * place; });
  }

  /** {points, share}: how far the points are to be believed, 0..1; 0 where nothing is known. */
  known(person) {
    const { p, w, ww, wx } = this.#of.get(person) ?? { ww: 0 };
    if (!(ww > 0)) return { points: null, share: 0 };
    const count = w ** 2 / ww;
    const share = (Math.min(1, w / p / FULL) * count) / (count + FEW);
    return {
      points: Float32Array.from(wx, (sum) => sum / Math.max(w, 1e-12)),
      share: share >= LEAST_SHARE ? share : 0,
    };
  }
}

/**
 * Answers between those of a picture by itself and those beside the points at rest.
 *
 * Logits are averaged; those of the probabilities differ from the network's by what the decisions
 * do not see.
 */
export function blended(alone, beside, share, decisions) {
  const between = (one, other) => (1 - share) * one + share * other;
  const mixed = (name, change) => Array.from(alone[name], (number, place) =>
    between(change(number), change(beside[name][place])));
  const log = (share_) => Math.log(Math.max(share_, LEAST));
  const unit = mixed("au_probability", (p) => log(p) - log(1 - p));
  const expression = mixed("expression_probability", log);
  const largest = Math.max(...expression);
  const odds = expression.map((logit) => Math.exp(logit - largest));
  const sum = odds.reduce((a, b) => a + b, 0);
  const thresholds = Object.values(decisions.au_thresholds);
  const biases = Object.values(decisions.expression_biases);
  const biased = expression.map((logit, place) => logit + biases[place]);
  const same = (number) => number;
  return {
    valence_arousal: mixed("valence_arousal", same),
    ...(alone.valence_arousal_std
      && { valence_arousal_std: mixed("valence_arousal_std", same) }),
    au_probability: unit.map((logit) => 1 / (1 + Math.exp(-logit))),
    au_present: unit.map((logit, place) => Number(logit > thresholds[place])),
    expression_probability: odds.map((each) => each / sum),
    expression: [biased.indexOf(Math.max(...biased))],
  };
}
