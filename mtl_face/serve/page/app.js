// The page: files and the camera are sent to this server alone, or answered by a thread of the page,
// and answers are shown as they come.

import * as panel from "./panel.js";
import { csv, describe, face, value } from "./table.js";

const MOST_ROWS = 200_000;  // of a table that is kept in the page
const CAMERA = { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } };
const LIVE_MS = 30_000;  // of the camera, in the curves
const SPOKEN_MS = 4000;  // between two sentences for those who hear the page
const SEEK_MS = 400;  // between two pictures of a video while it is analysed

const el = (id) => document.getElementById(id);
const [stage, photo, video] = [el("stage"), el("photo"), el("video")];

let about = null;
let page = null;  // the module that answers, where the server does not
let sources = [];
let current = null;
let chosen = 1;  // person
let waiting = [];  // files
let sending = null;  // AbortController of the file that is analysed
let live = null;  // the camera that runs
let dirty = false;
let spoken = { text: "", at: -Infinity };

// ---- start --------------------------------------------------------------------------------------

async function start() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token !== null) {
    history.replaceState(null, "", location.pathname);  // out of sight and of the history
    await logIn(token);
  }
  const response = await fetch("api/about");
  el("login").hidden = response.status !== 401;
  if (response.status === 401) return el("token").focus();
  if (!response.ok) throw new Error(await reason(response));
  about = await response.json();
  describe(about);
  panel.build(about);
  el("model").textContent = `model ${about.model}`;
  el("model").hidden = false;
  el("app").hidden = false;
  el("files").accept = ["image/*", "video/*", ...about.photos, ...about.videos].join();
  const local = ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname);
  el("where").textContent = local ? "on this machine" : `on ${location.hostname}`;
  if (about.in_page) await stayInPage();
}

/** Loads the networks into the page, and says what that changes. */
async function stayInPage() {
  el("files").accept = "image/*";
  el("model").textContent += ", in this page";
  el("what").textContent = "Drop or paste photos";
  el("choose").querySelector("span").textContent = "Photos";
  el("where").textContent = "in this page, and do not leave it";
  el("kept").hidden = true;
  for (const id of ["choose", "camera"]) el(id).disabled = true;
  progress("loading the networks", null);
  try {
    const loading = await import("./in_page.js");
    await loading.start(about);
    page = loading;
  } finally {
    progress(null);
  }
  for (const id of ["choose", "camera"]) el(id).disabled = false;
}

async function logIn(token) {
  const headers = { authorization: `Bearer ${token}` };
  const response = await fetch("api/session", { method: "POST", headers });
  return response.ok;
}

el("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (await logIn(el("token").value.trim())) return start();
  el("login-error").textContent = "This is not the token.";
  el("token").select();
});

async function reason(response) {
  try {
    return (await response.json()).error;
  } catch {
    return `the server answered ${response.status}`;
  }
}

/** Shows a message until it is closed. */
function tell(text) {
  const item = document.createElement("li");
  const words = document.createElement("p");
  words.textContent = text;
  const close = document.createElement("button");
  close.type = "button";
  close.textContent = "Close";
  close.addEventListener("click", () => item.remove());
  item.append(words, close);
  el("messages").append(item);
}

// ---- files --------------------------------------------------------------------------------------

const ending = (name) => (/\.[^./\\]+$/.exec(name)?.[0] ?? "").toLowerCase();

function add(files) {
  if (about.in_page && !page) return tell("The networks are not loaded yet.");
  if (live) stopCamera();
  for (const file of files) {
    if (page && file.type.startsWith("video/")) {
      tell(`${file.name}: videos are not analysed in the page. Use run.py predict.`);
    } else if (file.size > about.upload_bytes) {
      tell(`${file.name}: larger than ${Math.round(about.upload_bytes / 1e6)} MB`);
    } else {
      waiting.push(file);
    }
  }
  if (!sending) sendAll();
}

async function sendAll() {
  sending = new AbortController();
  const { signal } = sending;
  let total = waiting.length;
  let count = 0;
  while (waiting.length && !signal.aborted) {
    total = count + waiting.length;
    const file = waiting.shift();
    count += 1;
    const source = {
      kind: about.videos.includes(ending(file.name)) ? "video" : "photo",
      name: file.name, url: URL.createObjectURL(file), size: [0, 0], frames: [], rows: 0,
      total: 0, done: false, untouched: true, unseen: false,
    };
    const prefix = total > 1 ? `${count} of ${total}: ` : "";
    try {
      progress(`${prefix}${page ? "looking at" : "sending"} ${file.name}`, null);
      await send(file, source, signal, prefix);
    } catch (error) {
      if (signal.aborted) break;
      tell(error instanceof TypeError ? `${file.name}: the server cannot be reached`
        : error.message);
    }
    source.done = true;
    if (!sources.includes(source)) URL.revokeObjectURL(source.url);
    if (current === source && source.kind === "video" && source.untouched) seek(0);
    update();
  }
  progress(null);
  sending = null;
}

/** Has a file answered, and takes its answers as they come; throws what went wrong. */
async function send(file, source, signal, prefix) {
  let complete = false;
  for await (const answer of page ? answeredHere(file, signal) : answeredThere(file, signal)) {
    if (answer.error) {
      throw new Error(answer.error + (answer.remedy ? `. ${upper(answer.remedy)}.` : ""));
    }
    complete ||= answer.done === true;
    if (answer.kind === "video") source.total = answer.frames;
    if (answer.kind === "photo" && answer.is_first) {
      tell(`${file.name}: the first of several pictures was analysed`);
    }
    if (answer.damaged) tell(`${file.name}: ${answer.damaged} frames could not be decoded`);
    if (answer.width) source.size = [answer.width, answer.height];
    if (answer.rows) take(source, answer.rows);
    if (!sources.includes(source) && (answer.rows || answer.kind === "video")) {
      sources.push(source);
      select(source);
    }
    if (source.kind === "video" && answer.rows) {
      const of = `${source.frames.length} of ${source.total} frames`;
      progress(`${prefix}${of}`, source.frames.length / Math.max(source.total, 1));
      follow(source);
    }
  }
  if (!complete) throw new Error(`${file.name}: the server ended before all was answered`);
}

async function* answeredHere(file, signal) {
  let answer;
  try {
    answer = await page.photo(file);
  } catch (error) {
    throw new Error(`${file.name}: ${error.message}`);
  }
  signal.throwIfAborted();
  yield { ...answer, done: true };
}

async function* answeredThere(file, signal) {
  const address = `api/file?name=${encodeURIComponent(file.name)}`;
  const response = await fetch(address, { method: "POST", body: file, signal });
  if (response.status === 401) location.reload();
  if (!response.ok) throw new Error(`${file.name}: ${await reason(response)}`);
  yield* lines(response);
}

const upper = (text) => text[0].toUpperCase() + text.slice(1);

async function* lines(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value: piece } = await reader.read();
    if (done) return;
    const parts = (rest + piece).split("\n");
    rest = parts.pop();
    for (const part of parts) yield JSON.parse(part);
  }
}

/** Adds rows to a source, a frame for each run of equal numbers. */
function take(source, rows) {
  for (const row of rows) {
    const number = value(row, "frame");
    let frame = source.frames.at(-1);
    if (frame?.number !== number) {
      frame = { number, time: value(row, "time_ms") ?? source.frames.at(-1)?.time ?? 0, rows: [] };
      source.frames.push(frame);
    }
    frame.rows.push(row);
    source.rows += 1;
  }
  while (source.rows > MOST_ROWS) {
    source.rows -= source.frames.shift().rows.length;
    if (!source.cut) tell(`The table keeps the newest ${MOST_ROWS} rows of ${source.name}.`);
    source.cut = true;
  }
  update();
}

function progress(text, share) {
  el("progress").hidden = text === null;
  el("progress-text").textContent = text ?? "";
  if (share === null || share === undefined) el("bar").removeAttribute("value");
  else el("bar").value = share;
}

// ---- camera -------------------------------------------------------------------------------------

const CAMERA_ERRORS = {
  NotAllowedError: "The browser may not use the camera: allow it in the bar of the address.",
  NotFoundError: "There is no camera.",
  NotReadableError: "The camera is in use by another program.",
  OverconstrainedError: "The camera has no fitting picture.",
};

async function startCamera(device) {
  stopCamera();
  if (!navigator.mediaDevices) {
    return tell("Browsers open a camera only over https, or under http://127.0.0.1.");
  }
  let media;
  try {
    const wanted = device ? { ...CAMERA, deviceId: { exact: device } } : CAMERA;
    media = await navigator.mediaDevices.getUserMedia({ video: wanted, audio: false });
  } catch (error) {
    return tell(CAMERA_ERRORS[error.name] ?? `The camera does not start: ${error.message}`);
  }
  const session = 1 + sources.filter((source) => source.kind === "camera").length;
  const name = session > 1 ? `camera ${session}` : "camera";
  const source = {
    kind: "camera", name, size: [0, 0], frames: [], rows: 0, done: false, media,
  };
  live = { source, media, canvas: document.createElement("canvas"), delays: [], arrivals: [] };
  const own = live;
  sources.forEach((other) => { other.shown = false; });
  sources.push(source);
  select(source);
  el("camera").setAttribute("aria-pressed", "true");
  el("camera").querySelector("span").textContent = "Stop camera";
  media.getVideoTracks()[0].addEventListener("ended", () => {
    if (live === own) {
      stopCamera();
      tell("The camera went away. What it showed is kept in the table.");
    }
  });
  if (page) {
    own.page = new page.Camera(name);
    sendFrame(own);
  } else {
    connect(own, name);
  }
  await showDevices(media);
}

function connect(own, name) {
  const address = new URL(`api/camera?name=${encodeURIComponent(name)}`, location.href);
  address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(address);
  socket.binaryType = "arraybuffer";
  own.socket = socket;
  socket.addEventListener("open", () => sendFrame(own));
  socket.addEventListener("message", (event) => answered(own, JSON.parse(event.data)));
  socket.addEventListener("close", (event) => {
    if (live !== own) return;
    stopCamera();
    tell(event.reason ? `The camera was stopped: ${event.reason}.`
      : "The connection to the server was lost. Is it still running?");
  });
}

async function showDevices(media) {
  const devices = await navigator.mediaDevices.enumerateDevices();
  const cameras = devices.filter((device) => device.kind === "videoinput");
  el("device-label").hidden = cameras.length < 2;
  const used = media.getVideoTracks()[0].getSettings().deviceId;
  el("device").replaceChildren(...cameras.map((camera, place) =>
    new Option(camera.label || `camera ${place + 1}`, camera.deviceId, false,
      camera.deviceId === used)));
}

function stopCamera() {
  if (!live) return;
  const { media, socket, source } = live;
  live.page?.close();
  live = null;
  media.getTracks().forEach((track) => track.stop());
  // A browser complains of a connection that is closed while it is made.
  if (socket?.readyState === WebSocket.CONNECTING) {
    socket.addEventListener("open", () => socket.close());
  } else {
    socket?.close();
  }
  source.done = true;
  source.media = null;
  el("camera").setAttribute("aria-pressed", "false");
  el("camera").querySelector("span").textContent = "Start camera";
  el("device-label").hidden = true;
  update();
}

/** Sends a frame, and the next when it is answered: a second one would wait twice as long. */
async function sendFrame(own) {
  await nextFrame();
  if (live !== own) return;
  if (!video.videoWidth) return sendFrame(own);
  copy(video, video.videoWidth, video.videoHeight, own.canvas);
  own.time = performance.now();
  own.begin ??= own.time;
  if (own.page) return answerFrame(own);
  const image = await new Promise((resolve) => own.canvas.toBlob(resolve, "image/jpeg", 0.85));
  const message = new Uint8Array(8 + image.size);
  new DataView(message.buffer).setFloat64(0, own.time - own.begin);
  message.set(new Uint8Array(await image.arrayBuffer()), 8);
  if (own.socket.readyState === WebSocket.OPEN) own.socket.send(message);
}

/** Answers a frame in the page. */
async function answerFrame(own) {
  try {
    const answer = await own.page.frame(own.canvas, own.time - own.begin);
    if (live === own) answered(own, answer);
  } catch (error) {
    if (live !== own) return;
    stopCamera();
    tell(`The camera was stopped: ${error.message}.`);
  }
}

function copy(picture, width, height, canvas) {
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
  canvas.getContext("2d", { alpha: false }).drawImage(picture, 0, 0);
}

/** Waits for a picture that the video has not shown before, 200 ms at most. */
function nextFrame() {
  return new Promise((resolve) => {
    setTimeout(resolve, 200);  // a hidden page is shown no frames
    video.requestVideoFrameCallback(resolve);
  });
}

function answered(own, answer) {
  const now = performance.now();
  // The frame itself is shown, not the later one of the camera: what is seen is what was answered.
  copy(own.canvas, own.canvas.width, own.canvas.height, el("answered"));
  own.source.shown = true;
  own.delays = [...own.delays, now - own.time].slice(-30);
  own.arrivals = [...own.arrivals, now].slice(-30);
  sendFrame(own);
  if (answer.width) own.source.size = [answer.width, answer.height];
  take(own.source, answer.rows);
  if (own.arrivals.length > 4) {
    const rate = (1000 * (own.arrivals.length - 1)) / (now - own.arrivals[0]);
    const delay = own.delays.toSorted((a, b) => a - b)[own.delays.length >> 1];
    el("speed").textContent = `${rate.toFixed(0)} answers/s, ${delay.toFixed(0)} ms`;
  }
}

// ---- what is shown ------------------------------------------------------------------------------

function select(source) {
  current = source;
  chosen = 1;
  const { kind } = source ?? {};
  video.srcObject = kind === "camera" ? source.media : null;
  if (kind !== "camera") video.removeAttribute("src");
  photo.removeAttribute("src");
  if (kind === "video") video.src = source.url;
  if (kind === "photo") {
    photo.src = source.url;
    photo.alt = source.name;
  }
  if (source?.media) video.play();
  update();
}

photo.addEventListener("error", () => markUnseen());
video.addEventListener("error", () => markUnseen());
function markUnseen() {
  if (current && current.kind !== "camera") {
    current.unseen = true;
    update();
  }
}

/** The newest frame up to a time in ms. */
function frameAt(frames, time) {
  let [low, high] = [0, frames.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (frames[middle].time <= time + 1) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

/** Keeps up with the analysis, unless the video was started or moved by hand. */
function follow(source) {
  const now = performance.now();
  if (current !== source || !source.untouched || now - (source.followed ?? 0) < SEEK_MS) return;
  source.followed = now;
  seek(source.frames.at(-1).time);
}

function seek(time) {
  if (current.unseen) current.time = time;
  else video.currentTime = time / 1000;
  el("seek").value = time;
  update();
}

const timeShown = () => (current.unseen ? (current.time ?? 0) : 1000 * video.currentTime);

/** Draws before the next picture of the screen; a hidden page draws when it is seen again. */
function update() {
  if (dirty) return;
  dirty = true;
  requestAnimationFrame(() => {
    dirty = false;
    draw();
  });
}

function draw() {
  const kind = current?.kind;
  el("empty").hidden = kind !== undefined;
  photo.hidden = kind !== "photo" || current.unseen;
  video.hidden = !(kind === "video" && !current.unseen) && !(kind === "camera" && current.media);
  el("answered").hidden = !current?.shown;
  el("unseen").hidden = !current?.unseen;
  el("speed").hidden = !live || current !== live.source;
  el("mirror-label").hidden = !current?.shown;
  el("play").hidden = kind !== "video" || current.unseen;
  el("play").textContent = video.paused ? "Play" : "Pause";
  el("download").disabled = !sources.some((source) => source.rows);
  el("clear").disabled = !sources.length && !sending;
  const mirrored = kind === "camera" && el("mirror").checked;
  for (const id of ["video", "answered"]) el(id).classList.toggle("mirrored", mirrored);
  drawSources();
  const frames = current?.frames ?? [];
  const place = kind === "video" ? Math.max(frameAt(frames, timeShown()), 0) : frames.length - 1;
  const frame = frames[place];
  const faces = (frame?.rows ?? []).map(face).filter(Boolean);
  if (faces.length && !faces.some((seen) => seen.person === chosen)) {
    const area = ({ box }) => (box[2] - box[0]) * (box[3] - box[1]);
    chosen = faces.reduce((a, b) => (area(b) > area(a) ? b : a)).person;
  }
  const seen = faces.find((each) => each.person === chosen) ?? null;
  const others = faces.filter((each) => each !== seen);
  const past = frames.slice(Math.max(0, place - 60), Math.max(place, 0)).map((each) =>
    each.rows.find((row) => value(row, "person") === chosen))
    .filter((row) => row && value(row, "valence") !== null)
    .map((row) => [value(row, "valence"), value(row, "arousal")]);
  panel.show(seen, others, kind === "photo" ? [] : past, kind === "photo");
  el("nobody").hidden = seen !== null;
  if (frame) el("nobody").textContent = nobody(frame);
  drawPersons(faces);
  panel.overlay(faces, current?.size ?? [0, 0], chosen, mirrored);
  drawTimeline(frames, frame);
  if (frame) speak(panel.sentence(frame.rows));
}

function nobody(frame) {
  return value(frame.rows[0], "status") === "not decoded"
    ? "This frame could not be decoded."
    : "No face was found here. A face should be upright, lit, and some 40 pixels high or more.";
}

function drawTimeline(frames, frame) {
  const moving = current && current.kind !== "photo" && frames.length > 1;
  el("timeline").hidden = !moving;
  if (!moving) return;
  const isVideo = current.kind === "video";
  let end = frames.at(-1).time;
  if (isVideo && video.duration > 0) end = Math.max(end, 1000 * video.duration);
  const begin = isVideo ? 0 : current.done ? frames[0].time : Math.max(0, end - LIVE_MS);
  const visible = isVideo ? frames : frames.slice(Math.max(frameAt(frames, begin), 0));
  panel.curves(visible, chosen, begin, end, isVideo ? timeShown() : null);
  el("seek").hidden = !isVideo;
  el("seek").max = end;
  if (isVideo && !el("seek").matches(":active")) el("seek").value = timeShown();
  const seconds = ((isVideo ? timeShown() : end) / 1000).toFixed(1);
  el("clock").textContent = `${seconds} s, frame ${frame.number}`;
}

function drawPersons(faces) {
  const numbers = faces.map((seen) => seen.person).sort((a, b) => a - b);
  const holder = el("persons").querySelector("div");
  el("persons").hidden = numbers.length < 2;
  if (holder.dataset.key !== numbers.join()) {
    const focused = holder.contains(document.activeElement);
    holder.dataset.key = numbers.join();
    holder.replaceChildren(...numbers.map((number) => {
      const mark = document.createElement("i");
      mark.style.setProperty("--own", panel.color(number));
      const label = choice("person", `Person ${number}`, mark, () => { chosen = number; });
      label.style.setProperty("--own", panel.color(number));
      label.querySelector("input").value = number;
      return label;
    }));
    if (focused) holder.querySelector(`input[value="${chosen}"]`)?.focus();
  }
  const input = holder.querySelector(`input[value="${chosen}"]`);
  if (input) input.checked = true;
}

function choice(group, text, mark, chooseIt) {
  const label = document.createElement("label");
  const input = document.createElement("input");
  const words = document.createElement("span");
  input.type = "radio";
  input.name = group;
  words.textContent = text;
  input.addEventListener("change", () => {
    chooseIt();
    update();
  });
  label.append(input, mark, words);
  return label;
}

function drawSources() {
  const holder = el("sources").querySelector("div");
  el("sources").hidden = sources.length < 2;
  while (holder.childElementCount > sources.length) holder.lastChild.remove();
  sources.slice(holder.childElementCount).forEach((source) => {
    const mark = document.createElement("div");
    mark.className = "thumb";
    if (source.kind === "photo") {
      const image = new Image();
      image.src = source.url;
      image.alt = "";
      mark.append(image);
    } else {
      mark.textContent = source.kind;
    }
    holder.append(choice("source", source.name, mark, () => select(source)));
  });
  const place = sources.indexOf(current);
  if (place >= 0) holder.children[place].querySelector("input").checked = true;
}

/** Says a sentence to those who hear the page: at once for a photo, now and then for the rest. */
function speak(text) {
  const now = performance.now();
  if (text === spoken.text || (current.kind !== "photo" && now - spoken.at < SPOKEN_MS)) return;
  spoken = { text, at: now };
  el("answer").textContent = text;
}

// ---- controls -----------------------------------------------------------------------------------

el("choose").addEventListener("click", () => el("files").click());
el("files").addEventListener("change", () => {
  add([...el("files").files]);
  el("files").value = "";  // the same file can be chosen again
});
el("camera").addEventListener("click", () => (live ? stopCamera() : startCamera()));
el("device").addEventListener("change", () => startCamera(el("device").value));
el("mirror").addEventListener("change", update);
el("play").addEventListener("click", () => {
  current.untouched = false;
  if (video.paused) video.play();
  else video.pause();
});
el("seek").addEventListener("input", () => {
  current.untouched = false;
  video.pause();
  seek(Number(el("seek").value));
});
for (const event of ["play", "pause", "seeked", "timeupdate", "loadedmetadata"]) {
  video.addEventListener(event, update);
}
function followVideo() {
  if (current?.kind === "video") update();
  video.requestVideoFrameCallback(followVideo);
}
video.requestVideoFrameCallback(followVideo);
new ResizeObserver(update).observe(stage);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", update);

el("clear").addEventListener("click", () => {
  waiting = [];
  sending?.abort();
  stopCamera();
  sources.forEach((source) => source.url && URL.revokeObjectURL(source.url));
  sources = [];
  el("sources").querySelector("div").replaceChildren();
  el("messages").replaceChildren();
  el("answer").textContent = "";
  spoken = { text: "", at: -Infinity };
  select(null);
  el("nobody").textContent = "The answers for each face appear here.";
  el("choose").focus();
});

el("download").addEventListener("click", () => {
  const rows = sources.flatMap((source) => source.frames.flatMap((frame) => frame.rows));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([csv(rows)], { type: "text/csv" }));
  link.download = "faces.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
});

let depth = 0;  // of elements that a dragged file entered
document.addEventListener("dragenter", () => {
  depth += 1;
  stage.classList.toggle("over", about !== null);
});
document.addEventListener("dragleave", () => {
  depth -= 1;
  stage.classList.toggle("over", depth > 0);
});
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  depth = 0;
  stage.classList.remove("over");
  if (about) add([...event.dataTransfer.files]);
});

document.addEventListener("paste", (event) => {
  const files = [...event.clipboardData.files];
  if (!about || !files.length) return;
  event.preventDefault();
  add(files);
});

start().catch((error) => {
  el("app").hidden = false;
  tell(`The page cannot start: ${error.message}`);
});
