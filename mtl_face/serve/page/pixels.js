// Pictures as bytes, resized and cut as Pillow does it, bit for bit: {width, height, data}, RGB;
// and cuts that are not rounded to bytes.

const BITS = 22;  // of the fraction, in the weights of a resize
const MOST_SAMPLES = 8;  // a side of a pixel, when shrinking
const MARGIN = 2;  // pixels or blocks around the part of a picture that is looked at

/** A black picture. */
export function black(width, height) {
  return { width, height, data: new Uint8Array(3 * width * height) };
}

/** The picture of an `ImageData`; transparency is dropped. */
export function opaque({ width, height, data: given }) {
  const picture = black(width, height);
  for (let from = 0, to = 0; from < given.length; from += 4, to += 3) {
    picture.data[to] = given[from];
    picture.data[to + 1] = given[from + 1];
    picture.data[to + 2] = given[from + 2];
  }
  return picture;
}

/** A part of a picture, black where that does not reach: `Image.crop`. */
export function cropped(picture, left, top, width, height) {
  const part = black(width, height);
  paste(part, picture, -left, -top);
  return part;
}

/** Puts a picture into another one; what does not fit is left out: `Image.paste`. */
export function paste(target, picture, left, top) {
  const from = Math.max(0, -left);
  const wide = Math.min(picture.width, target.width - left) - from;
  if (wide <= 0) return;
  const end = Math.min(picture.height, target.height - top);
  for (let row = Math.max(0, -top); row < end; row++) {
    const start = 3 * (row * picture.width + from);
    target.data.set(picture.data.subarray(start, start + 3 * wide),
      3 * ((row + top) * target.width + left + from));
  }
}

/** Bilinear, `Image.resize(BILINEAR, reducing_gap=gap)`; without a gap in one step. */
export function resized(picture, width, height, gap = Infinity) {
  if (picture.width === width && picture.height === height) return picture;
  const across = Math.trunc(picture.width / width / gap) || 1;
  const down = Math.trunc(picture.height / height / gap) || 1;
  // Pillow keeps what is resized as numbers of 32 bits.
  const [right, bottom] = [Math.fround(picture.width / across), Math.fround(picture.height / down)];
  let small = across > 1 || down > 1 ? reduced(picture, across, down) : picture;
  const isNarrowed = width !== small.width || right !== width;
  const isLowered = height !== small.height || bottom !== height;
  const passes = [...(isNarrowed ? [false] : []), ...(isLowered ? [true] : [])];
  // The order of Pillow since 13.0; before, width was always first.
  const [less, lower] = [small.width - width, small.height - height];
  if (lower > 0 && lower > 2 * less) passes.reverse();
  for (const isDown of passes) {
    small = isDown
      ? resampled(small, weights(small.height, bottom, height), small.width, height, true)
      : resampled(small, weights(small.width, right, width), width, small.height, false);
  }
  return small;
}

/** Weights of the pixels of a side for each of the `size` places that share `length` of them. */
function weights(side, length, size) {
  const scale = length / size;
  const support = Math.max(scale, 1);
  return Array.from({ length: size }, (_, place) => {
    const centre = (place + 0.5) * scale;
    const first = Math.max(Math.trunc(centre - support + 0.5), 0);
    const end = Math.min(Math.trunc(centre + support + 0.5), side);
    const own = [];
    for (let pixel = first; pixel < end; pixel++) {
      own.push(Math.max(0, 1 - Math.abs((pixel - centre + 0.5) * (1 / support))));
    }
    const sum = own.reduce((a, b) => a + b, 0);
    return { first, own: own.map((weight) => Math.trunc(0.5 + (weight / sum) * 2 ** BITS)) };
  });
}

/** One axis resampled: each row or, `isDown`, column of the result by its weights. */
function resampled({ width: wide, data: from }, table, width, height, isDown) {
  const result = black(width, height);
  const [pixel, line] = isDown ? [3 * wide, 3] : [3, 3 * wide];
  const [toPixel, toLine] = isDown ? [3 * width, 3] : [3, 3 * width];
  const lines = isDown ? width : height;
  table.forEach(({ first, own }, place) => {
    for (let number = 0; number < lines; number++) {
      const start = number * line + first * pixel;
      const to = number * toLine + place * toPixel;
      for (let channel = 0; channel < 3; channel++) {
        let sum = 1 << (BITS - 1);
        for (let at = 0, source = start + channel; at < own.length; at++, source += pixel) {
          sum += from[source] * own[at];
        }
        result.data[to + channel] = Math.min(Math.max(sum >> BITS, 0), 255);
      }
    }
  });
  return result;
}

/** Means of blocks, smaller ones at the right and the bottom: `Image.reduce`. */
export function reduced(picture, across, down) {
  const result = black(Math.ceil(picture.width / across), Math.ceil(picture.height / down));
  for (let top = 0, to = 0; top < picture.height; top += down) {
    const bottom = Math.min(top + down, picture.height);
    for (let left = 0; left < picture.width; left += across) {
      const right = Math.min(left + across, picture.width);
      const count = (right - left) * (bottom - top);
      const factor = Math.trunc(Math.fround(2 ** 24 / count));
      for (let channel = 0; channel < 3; channel++) {
        let sum = count >> 1;
        for (let row = top; row < bottom; row++) {
          const end = 3 * (row * picture.width + right);
          let from = 3 * (row * picture.width + left) + channel;
          for (; from < end; from += 3) sum += picture.data[from];
        }
        result.data[to++] = Math.floor((sum * factor) / 2 ** 24);
      }
    }
  }
  return result;
}

/**
 * A square cut out of a picture, black where that does not reach: `faces.align.warp`.
 *
 * `inverse` maps places in the cut to places in the picture, [[a, b, c], [d, e, f]].
 */
export function warped(picture, inverse, size) {
  const samples = Math.min(samplesOf(shrinkage(inverse)), MOST_SAMPLES);
  const result = black(size * samples, size * samples);
  sample(picture, inverse, samples, result);
  return samples > 1 ? reduced(result, samples, samples) : result;
}

/** The same without rounding to grey levels, as Float32Array: `faces.align.cut`. */
export function cut(picture, inverse, size) {
  const shrink = shrinkage(inverse);
  const block = Math.max(Math.trunc(shrink), 1);
  const corners = [-0.5, size - 0.5].flatMap((x) => [-0.5, size - 0.5].map((y) => [x, y]));
  const sides = [picture.width, picture.height];
  const [left, right, top, bottom] = inverse.flatMap(([a, b, c], axis) => {
    const reach = corners.map(([x, y]) => (a * x + b * y + c) / block);
    return [
      block * Math.max(Math.floor(Math.min(...reach)) - MARGIN, 0),
      Math.min(block * Math.max(Math.ceil(Math.max(...reach)) + MARGIN, 0), sides[axis]),
    ];
  });
  if (right <= left || bottom <= top) return new Float32Array(3 * size * size);
  const whole = cropped(picture, left, top, right - left, bottom - top);
  const small = block > 1 ? reduced(whole, block, block) : whole;
  const part = cropped(small, -1, -1, small.width + 2, small.height + 2);  // fades to black
  const [first, second] = inverse.map(([a, b, c], axis) =>
    [a / block, b / block, (c + 0.5 - [left, top][axis]) / block + 0.5]);
  const samples = samplesOf(shrink / block);
  const side = size * samples;
  const result = { width: side, height: side, data: new Float32Array(3 * side * side) };
  sample(part, [first, second], samples, result);
  return samples > 1 ? means(result, samples) : result.data;
}

const shrinkage = ([[a, b], [d, e]]) => Math.sqrt(Math.abs(a * e - b * d));

const samplesOf = (shrink) => Math.max(Math.ceil(shrink - 0.25), 1);

/** Bilinear samples of a picture, `samples` a side of each pixel of a cut: `Image.transform`. */
function sample({ width, height, data }, [[a, b, c], [d, e, f]], samples, result) {
  // (0, 0) is the corner of the first pixel here, and each sample counts at its centre.
  const x0 = c - (a + b) * 0.5 + 0.5;
  const y0 = f - (d + e) * 0.5 + 0.5;
  for (let row = 0, to = 0; row < result.height; row++) {
    for (let column = 0; column < result.width; column++, to += 3) {
      const [right, below] = [column + 0.5, row + 0.5];
      const x = (a / samples) * right + (b / samples) * below + x0;
      const y = (d / samples) * right + (e / samples) * below + y0;
      if (!(x >= 0 && x < width && y >= 0 && y < height)) continue;
      const left = Math.floor(x - 0.5);
      const top = Math.floor(y - 0.5);
      const [dx, dy] = [x - 0.5 - left, y - 0.5 - top];
      const [from, next] = [3 * Math.max(left, 0), 3 * Math.min(left + 1, width - 1)];
      const upper = 3 * width * Math.max(top, 0);
      const lower = top + 1 < height ? 3 * width * (top + 1) : upper;
      for (let channel = 0; channel < 3; channel++) {
        const above = between(data[upper + from + channel], data[upper + next + channel], dx);
        const under = between(data[lower + from + channel], data[lower + next + channel], dx);
        result.data[to + channel] = between(above, under, dy);  // of bytes without its fraction
      }
    }
  }
}

/** Means of blocks, as Float32Array. */
function means({ width, height, data }, factor) {
  const result = new Float32Array(data.length / factor ** 2);
  for (let top = 0, to = 0; top < height; top += factor) {
    for (let left = 0; left < width; left += factor) {
      for (let channel = 0; channel < 3; channel++) {
        let sum = 0;
        for (let row = top; row < top + factor; row++) {
          const end = 3 * (row * width + left + factor);
          for (let from = 3 * (row * width + left) + channel; from < end; from += 3) {
            sum += data[from];
          }
        }
        result[to++] = sum / factor ** 2;
      }
    }
  }
  return result;
}

const between = (one, other, share) => one + (other - one) * share;
