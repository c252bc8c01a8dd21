// The start of the page: tabs, the choice of a model, and the address.

import * as about from "./about.js";
import * as generate from "./generate.js";
import * as look from "./look.js";
import { $, attempt, make } from "./page.js";
import { get, useKey } from "./server.js";
import * as train from "./train.js";

const TABS = ["generate", "look", "train", "about"];
const RETRY = 3000; // milliseconds
const DRAWN = { about: about.show, look: look.show };

let state = { training: false, models: [] };

function shown() {
  const [tab] = location.hash.slice(1).split("?");
  return TABS.includes(tab) && !$(`tab-${tab}`).hidden ? tab : "generate";
}

function draw() {
  const chosen = shown();
  for (const tab of TABS) {
    const button = $(`tab-${tab}`);
    button.ariaSelected = String(tab === chosen);
    button.tabIndex = tab === chosen ? 0 : -1;
    $(tab).hidden = tab !== chosen;
  }
  $("model-row").hidden = chosen === "train" || !state.models.length;
  $("unknown-row").hidden = chosen === "about";
  $("no-model").hidden = chosen === "train" || state.models.length > 0 || !state.training;
  DRAWN[chosen]?.();
}

// Shows a tab. The address of Generate also holds its settings.
export function open(tab) {
  history.pushState(null, "", tab === "generate" ? generate.address() : `#${tab}`);
  draw();
}

function listen() {
  for (const tab of TABS) $(`tab-${tab}`).onclick = () => open(tab);
  $("tabs").onkeydown = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const there = TABS.filter((tab) => !$(`tab-${tab}`).hidden);
    const next = there[(there.indexOf(shown()) + step + there.length) % there.length];
    open(next);
    $(`tab-${next}`).focus();
  };
  const moved = () => {
    generate.read(location.hash);
    draw();
  };
  addEventListener("popstate", moved);
  addEventListener("hashchange", moved);
  $("model").onchange = () => {
    generate.changed();
    draw();
  };
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") generate.stop();
  });
  $("key-form").onsubmit = (event) => {
    event.preventDefault();
    attempt(async () => {
      useKey($("key").value.trim());
      $("key-form").hidden = true;
      await start();
    });
  };
}

// Reads which models there are; called again when a run has ended. chosen: the model to select.
export async function refresh(chosen = $("model").value) {
  state = await get("/app/state");
  const names = state.models.map((model) => model.name);
  for (const [id, first] of [["model", []], ["second", [["", "no other model"]]], ["from", [["", "no: a new model"]]]]) {
    const before = id === "model" ? chosen : $(id).value;
    $(id).replaceChildren(...first.map(([value, text]) => new Option(text, value)), ...names.map((name) => new Option(name, name)));
    $(id).value = before;
    if ($(id).selectedIndex < 0) $(id).selectedIndex = 0;
  }
  look.useColours(state.colours);
  $("tab-train").hidden = !state.training;
  $("app-folder").replaceChildren(...(state.folder ? ["The folder of this app, with all runs: ", make("code", { textContent: state.folder })] : []));
  draw();
}

// A server that does not answer is asked again.
async function start() {
  try {
    await begin();
  } catch (error) {
    if (error.temporary) setTimeout(() => attempt(start), RETRY);
    throw error;
  }
}

async function begin() {
  await refresh(new URLSearchParams(location.hash.split("?")[1]).get("model") ?? undefined);
  if (!location.hash && !state.models.length && state.training) open("train");
  if (state.training) train.begin();
}

generate.begin();
generate.read(location.hash);
look.begin();
listen();
draw();
attempt(start);
