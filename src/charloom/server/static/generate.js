// The tab Generate: one text that a person and the model write together.

import { $, attempt, count, make, number } from "./page.js";
import { stream } from "./server.js";

// The fields: id, name in the address and in the request, and the value at first.
const FIELDS = [
  ["temperature", "temperature", "0.8"],
  ["length", "max_tokens", "500"],
  ["top-k", "top_k", ""],
  ["top-p", "top_p", ""],
  ["min-p", "min_p", ""],
  ["repetition-penalty", "repetition_penalty", ""],
  ["count", "n", "1"],
];
const LONGEST_PROMPT = 4000; // characters in an address
const NEAR_END = 40; // pixels
const SHOWN = 60; // characters of the beginning before each of several texts

const earlier = []; // texts before each change that is not the user's typing
let running = null; // the AbortController of the text in progress
let ended = Promise.resolve(); // when it has ended
let begun = { prompt: "", seed: null }; // what the address holds

const stops = () => $("stop-strings").value.split("\n").filter(Boolean).map((line) => line.replaceAll("\\n", "\n"));

// The settings of a request, without those that are off. A field that is wrong gets its line.
function settings() {
  const wrong = document.querySelector("#settings input:invalid");
  if (wrong) throw new Error(`${wrong.labels[0].textContent.trim()}: ${wrong.validationMessage}`);
  const found = {};
  for (const [id, name] of FIELDS) if (number(id) !== null) found[name] = number(id);
  if (stops().length) found.stop = stops();
  if ($("skip-unknown").checked) found.unknown = "skip";
  return found;
}

export function address() {
  const held = new URLSearchParams();
  if ($("model").value) held.set("model", $("model").value);
  for (const [id, name, first] of FIELDS) if ($(id).value !== first) held.set(name, $(id).value);
  if ($("stop-strings").value) held.set("stop", $("stop-strings").value);
  if ($("skip-unknown").checked) held.set("unknown", "skip");
  if (begun.seed !== null) held.set("seed", begun.seed);
  if (begun.prompt && begun.prompt.length <= LONGEST_PROMPT) held.set("prompt", begun.prompt);
  return `#generate?${held}`;
}

// Fills the fields from an address.
export function read(hash) {
  const [tab, query] = hash.slice(1).split("?");
  if (tab !== "generate" || query === undefined || hash === address()) return;
  if (running) {
    stop();
    ended.then(() => read(location.hash));
    return;
  }
  const held = new URLSearchParams(query);
  for (const [id, name, first] of FIELDS) $(id).value = held.get(name) ?? first;
  $("stop-strings").value = held.get("stop") ?? "";
  $("skip-unknown").checked = held.get("unknown") === "skip";
  if (held.get("model")) $("model").value = held.get("model");
  begun = { prompt: held.get("prompt") ?? "", seed: held.get("seed") };
  if (begun.seed !== null) {
    $("seed").value = begun.seed;
    $("new-seed").checked = false;
  }
  replace(begun.prompt);
}

// A setting has changed.
export function changed() {
  if (!$("generate").hidden) history.replaceState(null, "", address());
}

// Replaces the text; Undo brings back the one before.
function replace(text) {
  earlier.push([$("text").value, $("text").selectionEnd]);
  $("undo").disabled = false;
  put(text, text.length);
}

function put(text, caret) {
  $("text").value = text;
  $("text").setSelectionRange(caret, caret);
  label();
}

function undo() {
  if (running || !earlier.length) return;
  put(...earlier.pop());
  $("undo").disabled = !earlier.length;
  $("text").focus();
}

const atEnd = () => $("text").selectionEnd === $("text").value.length;

function label() {
  $("go").textContent = atEnd() ? "Go" : "Go from the cursor";
}

// Adds text at the end, and follows it unless the user has scrolled away.
function append(area, text) {
  const following = area.scrollHeight - area.scrollTop - area.clientHeight < NEAR_END;
  if ("value" in area) area.value += text;
  else area.append(text);
  if (following) area.scrollTop = area.scrollHeight;
}

// The element that each text of a request grows in.
function places(number) {
  $("side-by-side").replaceChildren();
  if (number === 1) return [$("text")];
  return Array.from({ length: number }, (_, index) => {
    const area = make("div", { className: "text", tabIndex: 0 }, make("span", { className: "given", textContent: begun.prompt.slice(-SHOWN) }));
    area.setAttribute("role", "region");
    area.setAttribute("aria-label", `Text ${index + 1}`);
    const use = make("button", { textContent: "Use this text", type: "button" });
    const made = make("span");
    use.onclick = () => {
      if (running) return;
      replace(begun.prompt + made.textContent);
      $("text").focus();
    };
    area.append(made);
    $("side-by-side").append(make("article", {}, area, use));
    return made;
  });
}

export function stop() {
  running?.abort();
}

export async function go() {
  if (running) return;
  running = new AbortController();
  show(true);
  ended = attempt(generate);
  await ended;
  running = null;
  show(false);
}

async function generate() {
  const prompt = $("text").value.slice(0, $("text").selectionEnd);
  const chosen = settings();
  if ($("new-seed").checked || number("seed") === null) $("seed").value = crypto.getRandomValues(new Uint32Array(1))[0];
  begun = { prompt, seed: $("seed").value };
  changed();
  const asked = { model: $("model").value, prompt, seed: number("seed"), ...chosen };
  const several = asked.n ?? 1;
  if (several === 1) replace(prompt);
  const areas = places(several);
  const start = performance.now();
  let length = 0, ending = "not complete";
  try {
    for await (const chunk of stream(asked, running.signal))
      for (const choice of chunk.choices) {
        append(areas[choice.index], choice.text);
        length += [...choice.text].length;
        if (choice.finish_reason && ending !== "ended by a stop string") ending = choice.finish_reason === "stop" ? "ended by a stop string" : "complete";
      }
  } finally {
    if (running.signal.aborted) ending = "stopped";
    if (several === 1) put($("text").value, $("text").value.length);
    const seconds = (performance.now() - start) / 1000;
    $("generate-status").textContent = `${count(length)} characters in ${seconds.toFixed(1)} s, ${ending}`;
  }
}

// A button that is disabled loses the keyboard's focus, so the other one gets it.
function show(busy) {
  const [from, to] = busy ? [$("go"), $("stop")] : [$("stop"), $("go")];
  const focused = document.activeElement === from;
  $("go").disabled = busy;
  $("undo").disabled = busy || !earlier.length;
  $("stop").disabled = !busy;
  if (focused) to.focus();
  $("text").readOnly = busy;
  if (busy) $("generate-status").textContent = "generating …";
  else if ($("generate-status").textContent === "generating …") $("generate-status").textContent = "";
}

// Continues a text that another tab hands over.
export async function continueFrom(text) {
  stop();
  await ended;
  replace(text);
  return go();
}

async function copyLink() {
  if (begun.prompt.length > LONGEST_PROMPT) {
    $("copied").textContent = `The beginning has more than ${count(LONGEST_PROMPT)} characters, so the link does not hold it.`;
    return;
  }
  const link = new URL(address(), location.href).href;
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(link);
    $("copied").textContent = "Copied.";
  } else {
    $("copied").textContent = link; // a browser copies only for pages of this machine, or with TLS
  }
}

export function begin() {
  for (const [id, , first] of FIELDS) $(id).value = first;
  $("new-seed").checked = true;
  $("go").onclick = go;
  $("stop").onclick = stop;
  $("undo").onclick = undo;
  $("copy-link").onclick = () => attempt(copyLink);
  $("settings").onchange = changed;
  $("skip-unknown").onchange = changed;
  $("seed").oninput = () => ($("new-seed").checked = false);
  for (const event of ["input", "keyup", "click", "select"]) $("text").addEventListener(event, label);
  $("generate").onkeydown = (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    go();
  };
}
