// Whether a cut lies between two frames of a camera, as `faces.track`: all of it is another.

const [WIDE, HIGH, BLOCK] = [64, 36, 4];  // samples, and those of a mean, a side
const SAME_SHOT = 0.6;

/** Brightness of a frame seen small, less its mean; all 0 if it has one brightness. */
export function view({ width, height, data }) {
  const means = new Float64Array((WIDE * HIGH) / BLOCK ** 2);
  for (let row = 0; row < HIGH; row++) {
    for (let column = 0; column < WIDE; column++) {
      const at = 3 * (Math.floor(((row + 0.5) * height) / HIGH) * width
        + Math.floor(((column + 0.5) * width) / WIDE));
      const grey = (19595 * data[at] + 38470 * data[at + 1] + 7471 * data[at + 2] + 32768) >> 16;
      means[Math.floor(row / BLOCK) * (WIDE / BLOCK) + Math.floor(column / BLOCK)] += grey;
    }
  }
  const levels = means.map((sum) => Math.round(sum / BLOCK ** 2));
  const mean = levels.reduce((a, b) => a + b, 0) / levels.length;
  return levels.map((level) => level - mean);
}

/** Whether two frames seen small are of different shots; never where one has one brightness. */
export function isCut(one, other) {
  const product = (a, b) => a.reduce((sum, number, place) => sum + number * b[place], 0);
  const length = Math.sqrt(product(one, one) * product(other, other));
  return length > 0 && product(one, other) / length < SAME_SHOT;
}
