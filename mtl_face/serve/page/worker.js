// Answers pictures in a thread of the page. It fetches networks and runtime, and sends nothing.

import * as ort from "./runtime/ort.wasm.min.mjs";

import { opaque } from "./pixels.js";
import { Stream, photo } from "./stream.js";

const MOST_THREADS = 4;

ort.env.wasm.wasmPaths = new URL("runtime/", import.meta.url).href;
// Threads share memory, which browsers allow where a page is isolated from others. They wait busily
// for each other: more than there are cores to spare would be slower than one.
ort.env.wasm.numThreads = self.crossOriginIsolated
  ? Math.min(Math.max(navigator.hardwareConcurrency >> 1, 1), MOST_THREADS) : 1;

let about = null;
let networks = null;
const streams = new Map();

/** A problem that is told as it is. */
class PictureError extends Error {}

const work = {
  async start(given) {
    about = given;
    const names = ["detector", "mesh", "network"];
    const [detector, mesh, network] = await Promise.all(names.map(load));
    networks = {
      detect: async (tile) => run(detector, { tile }, { tile: [256, 256, 3] }),
      mesh: async (pixels) => run(mesh, { cut: pixels }, { cut: [192, 192, 3] }),
      answer: (face, crop, baseline) => answered(network, face, crop, baseline),
    };
  },

  async photo({ file, name }) {
    return photo(await decoded(file), name, networks, about);
  },

  async frame({ stream, name, time, bitmap }) {
    if (!streams.has(stream)) streams.set(stream, new Stream(name, networks, about));
    return streams.get(stream).update(pixelsOf(bitmap), time);
  },

  async stop({ stream }) {
    streams.delete(stream);
  },
};

async function load(name) {
  const response = await fetch(`api/networks/${name}.onnx`);
  if (!response.ok) throw new PictureError(`the server answered ${response.status}`);
  // The operators that a product of int8 is fused to are not all in the runtime of browsers.
  const isInt8 = name === "network" && about.precision === "int8";
  const options = { graphOptimizationLevel: isInt8 ? "basic" : "all" };
  return ort.InferenceSession.create(new Uint8Array(await response.arrayBuffer()), options);
}

/** The arrays that a network gives for one example, by name. */
async function run(network, arrays, shapes) {
  const feeds = {};
  for (const [name, data] of Object.entries(arrays)) {
    const kind = data instanceof Float32Array ? "float32" : "uint8";
    feeds[name] = new ort.Tensor(kind, data, [1, ...shapes[name]]);
  }
  const found = await network.run(feeds);
  const results = {};
  for (const [name, tensor] of Object.entries(found)) {
    results[name] = tensor.data.slice();
    tensor.dispose();
  }
  return results;
}

/** The answers to a face; without a baseline that of the person is unknown. */
function answered(network, face, crop, baseline) {
  const size = about.crop_size;
  const points = face.points.length;
  const arrays = {};
  for (const name of network.inputNames) {
    if (name === "crop") arrays.crop = crop();
    if (name === "points") arrays.points = face.points;
    if (name === "baseline") arrays.baseline = baseline ?? new Float32Array(points);
  }
  const place = [points / 3, 3];
  return run(network, arrays, { crop: [size, size, 3], points: place, baseline: place });
}

/** The upright pixels of a file. */
async function decoded(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, {
      imageOrientation: "from-image", colorSpaceConversion: "none", premultiplyAlpha: "none",
    });
  } catch {
    throw new PictureError("this browser cannot decode it: convert it to JPEG or PNG");
  }
  return pixelsOf(bitmap);
}

function pixelsOf(bitmap) {
  const { width, height } = bitmap;
  try {
    if (width * height > about.pixels) {
      throw new PictureError(`more than ${about.pixels / 1e6} million pixels: shrink it`);
    }
    const canvas = new OffscreenCanvas(width, height);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(bitmap, 0, 0);
    return opaque(context.getImageData(0, 0, width, height));
  } finally {
    bitmap.close();
  }
}

let last = Promise.resolve();  // one at a time, in order
self.addEventListener("message", ({ data: { id, task, values } }) => {
  last = last.then(async () => {
    try {
      self.postMessage({ id, answer: await work[task](values) });
    } catch (error) {
      self.postMessage({ id, error: error.message || String(error) });
    }
  });
});
