// Draws answers: boxes over the picture, the panel of one face, and curves over time.

import { face, value } from "./table.js";

const TRAIL = 60;  // answers
const SVG = "http://www.w3.org/2000/svg";
const el = (id) => document.getElementById(id);
const percent = (share) => (share === null ? "" : String(Math.round(100 * share)));
const signed = (number) =>
  number === null ? "–" : (number < 0 ? "−" : "+") + Math.abs(number).toFixed(2);

export const color = (person) => `var(--person${(person - 1) % 6})`;
const resolved = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

let units = [];
let expressions = [];

/** Builds the rows of the tables once; answers only change their texts and bars. */
export function build(about) {
  const row = (head, detail) => {
    const tr = document.createElement("tr");
    const th = document.createElement("th");
    th.scope = "row";
    const name = document.createElement("b");
    name.textContent = head;
    th.append(name);
    if (detail) {
      const small = document.createElement("small");
      small.textContent = ` ${detail}`;
      th.append(small);
    }
    const cell = document.createElement("td");
    const track = document.createElement("span");
    const bar = document.createElement("i");
    track.className = "track";
    track.append(bar);
    cell.ariaHidden = "true";
    cell.append(track);
    const number = document.createElement("td");
    number.className = "number";
    tr.append(th, cell, number);
    return { tr, bar, number };
  };
  units = Object.entries(about.aus).map(([name, words]) => row(name.toUpperCase(), words));
  expressions = about.expressions.map((name) => row(name));
  el("aus").tBodies[0].replaceChildren(...units.map((unit) => unit.tr));
  el("expressions").tBodies[0].replaceChildren(...expressions.map((each) => each.tr));
}

function fill(row, share, present) {
  row.bar.style.transform = `scaleX(${share ?? 0})`;
  row.number.textContent = percent(share);
  row.tr.classList.toggle("present", present);
}

/** Shows one face: `seen` as from `table.face`, `others` of the frame, `past` earlier [v, a]. */
export function show(seen, others, past, single) {
  el("results").classList.toggle("blank", seen === null);
  el("results").inert = seen === null;
  if (seen === null) return clear();
  el("results").style.setProperty("--own", color(seen.person));
  const best = Math.max(...seen.expressions.map((share) => share ?? 0));
  el("expression").textContent = seen.expression || "No answer";
  el("sure").textContent = best > 0 ? `${percent(best)} %${best < 0.5 ? ", unsure" : ""}` : "";
  const caution = cautions(seen, single);
  el("caution").hidden = !caution;
  el("caution").textContent = caution;
  const names = expressions.map((each) => each.tr.cells[0].textContent);
  seen.expressions.forEach((share, place) =>
    fill(expressions[place], share, names[place] === seen.expression));
  seen.units.forEach((unit, place) => fill(units[place], unit.probability, unit.present));
  showPlane(seen, others, past);
  showFacts(seen);
}

function clear() {
  for (const row of [...units, ...expressions]) fill(row, null, false);
  for (const id of ["expression", "sure"]) el(id).textContent = "";
  el("caution").hidden = true;
  el("facts").replaceChildren();
  showPlane(null, [], []);
}

function cautions(seen, single) {
  const texts = [];
  if (seen.status.length) texts.push(`Do not trust this face: ${seen.status.join(", ")}.`);
  if (single) {
    texts.push(
      "From a single picture an expression is often wrong; changes within a person say more.");
  }
  return texts.join(" ");
}

function showPlane(seen, others, past) {
  const [valence, arousal] = seen?.va ?? [null, null];
  const known = valence !== null && arousal !== null;
  const spread = known && seen.std.every((std) => std !== null);
  for (const id of ["dot", "spread", "trail", "others"]) {
    el(id).style.visibility = known && (spread || id !== "spread") ? "visible" : "hidden";
  }
  const text = (name, place) => (known
    ? `${name} ${signed(seen.va[place])}${spread ? ` ± ${seen.std[place].toFixed(2)}` : ""}` : "");
  el("va").children[0].textContent = text("Valence", 0);
  el("va").children[1].textContent = text("Arousal", 1);
  if (!known) return;
  el("dot").setAttribute("cx", valence);
  el("dot").setAttribute("cy", -arousal);
  const ellipse = el("spread");
  if (spread) {
    ellipse.setAttribute("cx", valence);
    ellipse.setAttribute("cy", -arousal);
    ellipse.setAttribute("rx", seen.std[0]);
    ellipse.setAttribute("ry", seen.std[1]);
  }
  const points = [...past.slice(-TRAIL), seen.va];
  const trail = el("trail");
  while (trail.childElementCount < points.length - 1) {
    trail.append(document.createElementNS(SVG, "line"));
  }
  while (trail.childElementCount > points.length - 1) trail.lastChild.remove();
  [...trail.children].forEach((line, place) => {
    const [from, to] = [points[place], points[place + 1]];
    line.setAttribute("x1", from[0]);
    line.setAttribute("y1", -from[1]);
    line.setAttribute("x2", to[0]);
    line.setAttribute("y2", -to[1]);
    line.setAttribute("stroke-opacity", (0.75 * (place + 1)) / points.length);
  });
  el("others").replaceChildren(...others.filter((other) => other.va[0] !== null).map((other) => {
    const dot = document.createElementNS(SVG, "circle");
    dot.setAttribute("r", 0.04);
    dot.setAttribute("cx", other.va[0]);
    dot.setAttribute("cy", -other.va[1]);
    dot.style.fill = color(other.person);
    return dot;
  }));
}

function showFacts(seen) {
  const height = Math.round(seen.box[3] - seen.box[1]);
  const facts = [["Height", `${height} px`], ["Detection", `${percent(seen.score)} %`]];
  if (seen.pose[0] !== null) {
    const degrees = (angle) => `${angle < -0.5 ? "−" : ""}${Math.abs(Math.round(angle))}°`;
    facts.push(["Yaw, pitch, roll", seen.pose.map(degrees).join(", ")]);
  }
  if (seen.baseline) facts.push(["Compared with", seen.baseline === "none" ? "nothing"
    : seen.baseline]);
  facts.push(["Quality", seen.status.length ? seen.status.join(", ") : "good"]);
  el("facts").replaceChildren(...facts.flatMap(([term, text]) => {
    const dt = document.createElement("dt");
    const dd = document.createElement("dd");
    dt.textContent = term;
    dd.textContent = text;
    return [dt, dd];
  }));
}

/** Canvas with the size of its element in device pixels; its context in CSS pixels. */
function prepared(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const ratio = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
  if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

/** Boxes and names of the faces of a picture of `size` that is shown as `object-fit: contain`. */
export function overlay(faces, size, selected, mirrored) {
  const { context, width, height } = prepared(el("overlay"));
  if (!size[0] || !size[1]) return;
  const scale = Math.min(width / size[0], height / size[1]);
  const left = (width - scale * size[0]) / 2;
  const top = (height - scale * size[1]) / 2;
  context.font = "600 13px system-ui, sans-serif";
  context.textBaseline = "middle";
  // the chosen face last, above the others
  const order = [...faces].sort((a, b) => (a.person === selected) - (b.person === selected));
  const names = []; // places of those that are drawn
  for (const seen of order) {
    const own = resolved(`--person${(seen.person - 1) % 6}`);
    let [x0, y0, x1, y1] = seen.box;
    if (mirrored) [x0, x1] = [size[0] - x1, size[0] - x0];
    [x0, x1] = [x0, x1].map((x) => left + scale * (x + 0.5));
    [y0, y1] = [y0, y1].map((y) => top + scale * (y + 0.5));
    const line = seen.person === selected ? 3 : 2;
    for (const [style, extra] of [["#000000a0", 2], [own, 0]]) {
      context.strokeStyle = style;
      context.lineWidth = line + extra;
      context.setLineDash(seen.status.length && !extra ? [8, 6] : []);
      context.beginPath();
      context.roundRect(x0, y0, x1 - x0, y1 - y0, 8);
      context.stroke();
    }
    const text = label(seen, seen.person === selected);
    const wide = context.measureText(text).width + 14;
    const x = Math.min(Math.max(x0, 4), Math.max(width - wide - 4, 4));
    const isFree = (y) => y > 3 && names.every((other) =>
      x >= other.x + other.wide || other.x >= x + wide || Math.abs(y - other.y) >= 22);
    const below = Math.min(y1 + 5, height - 26);
    const y = [y0 - 27, below].find(isFree) ?? below;
    names.push({ x, y, wide });
    context.fillStyle = own;
    context.beginPath();
    context.roundRect(x, y, wide, 22, 6);
    context.fill();
    context.fillStyle = resolved("--on-accent");
    context.fillText(text, x + 7, y + 11.5);
  }
}

function label(seen, long) {
  if (!long) return `Person ${seen.person}`;
  const best = Math.max(...seen.expressions.map((share) => share ?? 0));
  const words = seen.expression ? ` · ${seen.expression} ${percent(best)} %` : "";
  return `Person ${seen.person}${words}`;
}

/** Valence and arousal of a person over the frames, from `begin` to `end` in ms. */
export function curves(frames, person, begin, end, now) {
  const { context, width, height } = prepared(el("curves"));
  const x = (time) => ((time - begin) / Math.max(end - begin, 1)) * (width - 16) + 8;
  const y = (level) => height / 2 - level * (height / 2 - 6);
  context.strokeStyle = resolved("--line");
  context.lineWidth = 1;
  context.beginPath();
  for (const level of [-1, 0, 1]) {
    context.moveTo(0, Math.round(y(level)) + 0.5);
    context.lineTo(width, Math.round(y(level)) + 0.5);
  }
  context.stroke();
  const step = Math.max(1, Math.floor(frames.length / (2 * width)));
  for (const name of ["arousal", "valence"]) {
    const tone = resolved(`--${name}`);
    const known = [];
    for (let place = 0; place < frames.length; place += step) {
      const frame = frames[place];
      const row = frame.rows.find((each) => value(each, "person") === person);
      const level = row ? value(row, name) : null;
      known.push(level === null ? null
        : [x(frame.time), level, value(row, `${name}_std`) ?? 0]);
    }
    context.fillStyle = tone;
    context.strokeStyle = tone;
    for (const run of runs(known)) {
      context.globalAlpha = 0.16;
      context.beginPath();
      run.forEach(([place, level, std]) => context.lineTo(place, y(Math.min(level + std, 1))));
      run.toReversed().forEach(([place, level, std]) =>
        context.lineTo(place, y(Math.max(level - std, -1))));
      context.fill();
      context.globalAlpha = 1;
      context.lineWidth = 2;
      context.lineJoin = "round";
      context.beginPath();
      run.forEach(([place, level]) => context.lineTo(place, y(level)));
      if (run.length === 1) context.arc(run[0][0], y(run[0][1]), 1, 0, 7);
      context.stroke();
    }
  }
  if (now !== null) {
    context.strokeStyle = resolved("--text");
    context.lineWidth = 1.5;
    context.beginPath();
    context.moveTo(x(now), 0);
    context.lineTo(x(now), height);
    context.stroke();
  }
}

/** Stretches without a gap. */
function runs(points) {
  const result = [];
  let run = [];
  for (const point of [...points, null]) {
    if (point) run.push(point);
    else if (run.length) { result.push(run); run = []; }
  }
  return result;
}

/** One sentence on the faces of a frame, for those who hear the page. */
export function sentence(rows) {
  const faces = rows.map(face).filter(Boolean);
  if (!faces.length) return "No face.";
  return faces.slice(0, 4).map((seen) => {
    const present = seen.units.map((unit, place) => (unit.present ? place : -1))
      .filter((place) => place >= 0)
      .map((place) => units[place].tr.cells[0].firstChild.textContent);
    const parts = [`Person ${seen.person}: ${seen.expression || "no expression"}`];
    if (seen.va[0] !== null) {
      parts.push(`valence ${seen.va[0].toFixed(1)}`, `arousal ${seen.va[1].toFixed(1)}`);
    }
    if (present.length) parts.push(present.join(", "));
    return parts.join(", ") + ".";
  }).join(" ");
}
