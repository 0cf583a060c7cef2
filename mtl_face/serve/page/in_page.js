// The thread of the page that answers pictures, where the server holds no network.

let worker = null;
let asked = 0;
const waiting = new Map();

function ask(task, values, transferred = []) {
  const id = ++asked;
  worker.postMessage({ id, task, values }, transferred);
  return new Promise((resolve, reject) => waiting.set(id, { resolve, reject }));
}

/** Loads the networks; throws what is missing. */
export async function start(about) {
  worker = new Worker("worker.js", { type: "module" });
  worker.addEventListener("message", ({ data: { id, answer, error } }) => {
    if (!waiting.has(id)) return;
    const { resolve, reject } = waiting.get(id);
    waiting.delete(id);
    if (error === undefined) resolve(answer);
    else reject(new Error(error));
  });
  // Nothing of what is asked then is answered any more.
  worker.addEventListener("error", (event) => {
    const error = new Error(event.message || "this browser cannot run the networks");
    for (const { reject } of waiting.values()) reject(error);
    waiting.clear();
  });
  await ask("start", about);
}

/** The answer to a photo, as the server would give it. */
export function photo(file) {
  return ask("photo", { file, name: file.name });
}

/** A camera's frames, answered one after the other. */
export class Camera {
  #stream = ++asked;
  #name;

  constructor(name) {
    this.#name = name;
  }

  async frame(canvas, time) {
    const bitmap = await createImageBitmap(canvas);
    return ask("frame", { stream: this.#stream, name: this.#name, time, bitmap }, [bitmap]);
  }

  close() {
    ask("stop", { stream: this.#stream });
  }
}
