// Rows as the server sends them, and the table that is downloaded.

let columns = [];
let at = {};
let unitNames = [];
let expressionNames = [];

/** Takes the names that `/api/about` tells. */
export function describe(about) {
  columns = about.columns;
  at = Object.fromEntries(columns.map((name, place) => [name, place]));
  unitNames = Object.keys(about.aus);
  expressionNames = about.expressions;
}

/** A value of a row by its column. */
export const value = (row, name) => row[at[name]];

/** A row with a face as an object; null for a row without one. */
export function face(row) {
  const get = (name) => row[at[name]];
  if (!get("person")) return null;
  return {
    person: get("person"),
    status: get("status").split("+").filter((word) => word !== "ok"),
    score: get("detection_score"),
    box: ["face_left", "face_top", "face_right", "face_bottom"].map(get),
    pose: ["yaw", "pitch", "roll"].map(get),
    baseline: get("baseline"),
    va: [get("valence"), get("arousal")],
    std: [get("valence_std"), get("arousal_std")],
    units: unitNames.map((name) => ({
      probability: get(`${name}_probability`),
      present: get(`${name}_present`) === 1,
    })),
    expression: get("expression"),
    expressions: expressionNames.map((name) => get(`expr_${name.toLowerCase()}_probability`)),
  };
}

/** CSV with a header, as RFC 4180 has it; an absent value is empty. */
export function csv(rows) {
  const cell = (content) => {
    const text = content === null || content === undefined ? "" : String(content);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [columns, ...rows].map((row) => row.map(cell).join(",") + "\r\n").join("");
}
