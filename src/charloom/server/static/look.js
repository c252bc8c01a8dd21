// The tab Look: how a model reads a text. Each character is coloured by its surprise, or by the value of a unit.

import { open } from "./app.js";
import { continueFrom } from "./generate.js";
import { $, attempt, bits, count, make, number, visible } from "./page.js";
import { get, post } from "./server.js";

const RANKS = [["1", 1], ["2 to 5", 5], ["6 to 20", 20], ["below 20", Infinity]];
const DEEPEST = 0.6; // opacity of the largest value of a unit
const POSITIVE = "31, 110, 190", NEGATIVE = "214, 110, 0";

let colours = []; // of each level of surprise: foreground and background, or null
let read = []; // what each model said: { model, text, characters, cells, spans, values }
let kept = null; // the character whose list stays
let explained = null; // the character of the list: what a model said, and the number of the character
let turns = 0, looks = 0; // of colouring and of looking: only the last one counts
let facts = {}; // of the model, for the choice of a unit

export function useColours(found) {
  colours = found;
}

export function begin() {
  $("look-go").onclick = () => attempt(look);
  $("look-take").onclick = () => {
    $("look-text").value = $("text").value;
    attempt(look);
  };
  $("colour-by").onchange = () => attempt(recolour);
  for (const id of ["array", "layer", "unit"]) $(id).onchange = () => attempt(recolour);
  $("look-text").onkeydown = (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) attempt(look);
  };
}

export function show() {
  const name = $("model").value;
  if (name && name !== facts.name) attempt(() => offerUnits(name));
}

async function offerUnits(name) {
  const found = await get(`/app/models/${encodeURIComponent(name)}`);
  if (name !== $("model").value) return;
  facts = found;
  const before = $("array").value;
  $("array").replaceChildren(...facts.arrays.map((array) => new Option(array.replaceAll("_", " "), array)));
  $("array").value = facts.arrays.includes(before) ? before : facts.arrays.at(-1);
  $("layer").max = facts.layers - 1;
  $("unit").max = facts.hidden - 1;
}

const unknown = () => ($("skip-unknown").checked ? "skip" : "error");

async function look() {
  const mine = ++looks;
  $("look-status").textContent = "reading …";
  try {
    const models = [$("model").value, ...($("second").value ? [$("second").value] : [])];
    const text = $("look-text").value;
    const answers = await Promise.all(models.map((model) => post("/app/look", { model, text, unknown: unknown() })));
    if (mine !== looks) return; // a later text has its own answer
    read = answers.map((answer, index) => ({ model: models[index], text, unknown: unknown(), ...cut(answer) }));
    kept = explained = null;
    $("detail").hidden = true;
    $("looks").replaceChildren(...read.map(drawn));
    await recolour();
  } finally {
    if (mine === looks) $("look-status").textContent = "";
  }
}

// The cells of a text: a character, with the tokens that begin at its place. A character of several bytes has several.
function cut(answer) {
  const characters = [...answer.text];
  const starts = [...new Set(answer.places)];
  const cells = starts.map((start, index) => ({
    shown: characters.slice(start, starts[index + 1]).join(""),
    start,
    tokens: [],
  }));
  const at = new Map(starts.map((start, index) => [start, index]));
  answer.places.forEach((place, token) => cells[at.get(place)].tokens.push(token));
  for (const cell of cells) {
    const nats = cell.tokens.map((token) => answer.nats[token]);
    cell.bits = nats.includes(null) ? null : bits(nats.reduce((sum, value) => sum + value, 0));
    cell.rank = answer.ranks[cell.tokens[0]];
    cell.top = answer.top[cell.tokens[0]];
  }
  return { characters, cells, ranks: answer.ranks, nats: answer.nats };
}

function drawn(one) {
  const area = make("div", { className: "text" });
  area.setAttribute("role", "group");
  area.setAttribute("aria-label", `The text as ${one.model} reads it`);
  one.spans = one.cells.map((cell, index) => {
    // A span, because a button cannot break over lines.
    const span = make("span", { className: "ch", role: "button", tabIndex: index ? -1 : 0, textContent: face(cell.shown) });
    span.ariaLabel = visible(cell.shown); // a space alone is no name
    span.onfocus = () => {
      for (const other of one.spans) if (other.tabIndex === 0) other.tabIndex = -1;
      span.tabIndex = 0; // one of them is in the order of the Tab key
      kept ?? explain(one, index);
    };
    span.onmouseover = () => kept ?? explain(one, index);
    span.onclick = () => {
      keep(kept === span ? null : span);
      explain(one, index);
    };
    return span;
  });
  area.append(...one.spans);
  area.onkeydown = (event) => moved(event, one);
  return make("article", {}, make("h3", { textContent: one.model }), make("p", { textContent: summary(one) }), area, histogram(one));
}

function keep(span) {
  kept?.classList.remove("kept");
  kept = span;
  kept?.classList.add("kept");
}

const face = (shown) => (shown.endsWith("\n") ? "↵".repeat(shown.length) + "\n" : shown === " " ? " " : visible(shown));

function summary(one) {
  const known = one.nats.filter((value) => value !== null);
  const mean = bits(known.reduce((sum, value) => sum + value, 0)) / Math.max(1, one.cells.filter((cell) => cell.bits !== null).length);
  return known.length ? `${mean.toFixed(2)} bits/char for ${count(one.cells.length)} characters` : "one character: nothing to predict";
}

// Arrow keys go from character to character. Enter keeps the list and goes there.
function moved(event, one) {
  const here = one.spans.indexOf(document.activeElement);
  const last = one.spans.length - 1;
  const next = { ArrowRight: here + 1, ArrowLeft: here - 1, Home: 0, End: last, PageDown: here + 50, PageUp: here - 50 }[event.key];
  if (here < 0 || (next === undefined && event.key !== "Enter" && event.key !== " ")) return;
  event.preventDefault();
  if (next === undefined) {
    keep(one.spans[here]);
    explain(one, here);
    $("detail").querySelector("button:enabled")?.focus();
  } else {
    keep(null);
    one.spans[Math.min(last, Math.max(0, next))].focus();
  }
}

// What the model expected in place of a character.
function explain(one, index) {
  explained = [one, index];
  const cell = one.cells[index];
  const title = make("p", { textContent: `${one.model}, character ${count(index + 1)}, ${visible(cell.shown)}: ${described(one, cell)}` });
  const choices = (cell.top ?? []).map(([name, logprob]) => {
    const choice = make("button", { type: "button", textContent: `${visible(name)}  ${percent(Math.exp(logprob))}` });
    choice.disabled = name.startsWith("bytes:") || name === "\ufffd"; // half a character cannot be typed
    choice.onclick = () => choose(one.model, one.characters.slice(0, cell.start).join("") + name);
    return choice;
  });
  const heading = make("p", { textContent: "The likeliest characters here. Choose one to continue from it:" });
  $("detail").replaceChildren(title, ...(choices.length ? [heading, make("div", { className: "row" }, ...choices)] : []));
  $("detail").hidden = false;
}

function described(one, cell) {
  const value = one.values?.[cell.tokens.at(-1)];
  const ofUnit = value === undefined || value === null ? "" : `; ${$("array").value} of unit ${$("unit").value}: ${value.toFixed(3)}`;
  if (cell.bits === null) return `not predicted${ofUnit}`;
  const rank = cell.rank === null ? "rank below 20" : `rank ${cell.rank}`;
  return `${cell.bits.toFixed(2)} bits, probability ${percent(2 ** -cell.bits)}, ${rank}${ofUnit}`;
}

const percent = (share) => (share > 0 && share < 0.0005 ? "below 0.1%" : `${(100 * share).toFixed(1)}%`);

function choose(model, text) {
  $("model").value = model;
  open("generate");
  continueFrom(text);
}

function histogram(one) {
  const predicted = one.nats.filter((value) => value !== null).length || 1;
  let below = 0;
  const rows = RANKS.flatMap(([label, most]) => {
    const here = one.ranks.filter((rank, token) => one.nats[token] !== null && (rank ?? 21) > below && (rank ?? 21) <= most).length;
    below = most;
    const bar = make("div", { className: "bar" });
    bar.style.width = `${(100 * here) / predicted}%`;
    return [make("span", { textContent: `rank ${label}` }), bar, make("span", { textContent: `${((100 * here) / predicted).toFixed(1)}%` })];
  });
  return make("div", { className: "bars" }, ...rows);
}

async function recolour() {
  const turn = ++turns;
  const byUnit = $("colour-by").value === "unit";
  $("unit-row").hidden = !byUnit;
  const values = byUnit ? await Promise.all(read.map(valuesOf)) : [];
  if (turn !== turns) return; // a later choice has its own answer
  read.forEach((one, number) => {
    one.values = values[number];
    one.largest = byUnit ? Math.max(1, ...one.values.map(Math.abs)) : 1;
    one.cells.forEach((cell, index) => {
      const style = one.spans[index].style;
      [style.color, style.background] = byUnit ? ofValue(one.values[cell.tokens.at(-1)], one.largest) : ofSurprise(cell.bits);
    });
  });
  legend(byUnit);
  if (explained) explain(...explained);
}

async function valuesOf(one) {
  const asked = { model: one.model, text: one.text, unknown: one.unknown, array: $("array").value, layer: number("layer") ?? 0, unit: number("unit") ?? 0 };
  return (await post("/app/unit", asked)).values;
}

function ofSurprise(amount) {
  const found = amount === null ? null : colours[Math.min(colours.length - 1, Math.floor(amount))];
  return found ?? ["", ""];
}

function ofValue(value, largest) {
  if (value === null) return ["", ""];
  return ["", `rgba(${value < 0 ? NEGATIVE : POSITIVE}, ${(DEEPEST * Math.abs(value)) / largest})`];
}

function legend(byUnit) {
  if (byUnit) {
    const largest = Math.max(1, ...read.map((one) => one.largest));
    const parts = [[1, `+${largest.toFixed(2)}`], [0.5, "positive"], [-0.5, "negative"], [-1, `−${largest.toFixed(2)}`]];
    $("legend").replaceChildren("Value after each character: ", ...parts.map(([value, text]) => swatch(text, ofValue(value, 1))));
  } else {
    const parts = colours.map((pair, level) => swatch(level === colours.length - 1 ? `${level} or more` : `${level}`, pair ?? ["", ""]));
    $("legend").replaceChildren("Bits of each character, rounded down: ", ...parts);
  }
}

function swatch(text, [foreground, background]) {
  const made = make("span", { className: "swatch", textContent: text });
  [made.style.color, made.style.background] = [foreground, background];
  return made;
}
