// The tab About: what the model is, how it compares with compressors, where it is, and a copy of it.

import { $, attempt, make } from "./page.js";
import { download, get } from "./server.js";

let shown = "";

const path = (name, further = "") => `/app/models/${encodeURIComponent(name)}${further}`;

export function show() {
  const name = $("model").value;
  if (name && name !== shown) attempt(() => draw(name));
}

// Another model may be loaded under this name.
export function forget() {
  shown = "";
}

async function draw(name) {
  const found = await get(path(name));
  if (name !== $("model").value) return; // another model was chosen meanwhile
  shown = name;
  $("about-name").textContent = name;
  const rows = { ...found.facts, folder: found.folder };
  $("facts").replaceChildren(
    ...Object.entries(rows).flatMap(([label, value]) => [make("dt", { textContent: label }), make("dd", { textContent: value })]),
  );
  $("card").textContent = found.card;
  $("about-status").textContent = "";
  $("download").onclick = () => attempt(() => save(name));
  offerComparison(name);
}

async function save(name) {
  $("about-status").textContent = "packing …";
  let status = "";
  try {
    const link = make("a", { href: URL.createObjectURL(await download(path(name, "/download"))), download: `${name}.zip` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    status = `${name}.zip`;
  } finally {
    $("about-status").textContent = status;
  }
}

function offerComparison(name) {
  const compare = make("button", { id: "compare", textContent: "Compare with xz and PPMd" });
  compare.onclick = () => attempt(() => measure(name));
  $("compressors").replaceChildren(compare);
}

async function measure(name) {
  $("compressors").replaceChildren("measuring; for a large text this takes half a minute …");
  try {
    const found = await get(path(name, "/compressors"));
    if (name === $("model").value) $("compressors").replaceChildren(found ? table(found) : "This model has no held-out text here.");
  } catch (error) {
    if (name === $("model").value) offerComparison(name);
    throw error;
  }
}

function table(found) {
  const rows = [
    ["this model", found.bits_per_char],
    ["xz -9e", found.xz_bits_per_char],
    ["PPMd", found.ppmd_bits_per_char],
  ];
  return make(
    "div",
    {},
    make("table", {}, make("tbody", {}, ...rows.map(([label, value]) =>
      make("tr", {}, make("th", { scope: "row", textContent: label }), make("td", { className: "number", textContent: value.toFixed(2) }))))),
    make("p", { className: "hint", textContent: `${found.characters.toLocaleString("en-US")} characters that training did not read. xz and PPMd were given the training text first.` }),
  );
}
