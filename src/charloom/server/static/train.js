// The tab Train: texts, the plan, the run in progress, and the list of runs.

import { forget } from "./about.js";
import { open, refresh } from "./app.js";
import { chart } from "./chart.js";
import { $, attempt, count, duration, make, number } from "./page.js";
import { get, post, put } from "./server.js";

const OFTEN = 500, SELDOM = 3000; // milliseconds between two questions: while a run trains, and otherwise
const LARGEST = 256 * 2 ** 20; // bytes of all texts of a run
const SAMPLES = 20; // shown

let files = []; // those that were chosen
let uploaded = null; // the upload that holds them: { id, of }
let current = null; // the run that trains, by its name
let followed = null; // the run that is shown: { run, next, events }
let timer = 0;

const hex = () => [...crypto.getRandomValues(new Uint8Array(8))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

export function begin() {
  if (timer) return;
  timer = setTimeout(poll, 0);
}

// ---- texts

function texts() {
  const pasted = $("pasted").value;
  return pasted.trim() ? [...files, new File([pasted], "pasted.txt")] : files;
}

function choose(more) {
  files = [...files, ...more];
  uploaded = null;
  drawFiles();
}

function drawFiles() {
  const rows = files.map((file) => {
    const remove = make("button", { type: "button", textContent: "Remove", ariaLabel: `Remove ${file.name}` });
    remove.onclick = () => {
      files = files.filter((other) => other !== file);
      uploaded = null;
      drawFiles();
    };
    return make("li", {}, `${file.name}, ${count(file.size)} bytes `, remove);
  });
  $("chosen").replaceChildren(...rows);
}

// Sends the texts to the server once, and returns the name of the upload.
async function upload() {
  const all = texts();
  const size = all.reduce((sum, file) => sum + file.size, 0);
  if (!all.length) throw new Error("A run needs a text: drop a file, choose one, or paste a text.");
  if (size > LARGEST) throw new Error(`The texts may have ${count(LARGEST)} bytes together; these have ${count(size)}. \`charloom train\` in a terminal has no such limit.`);
  const pasted = $("pasted").value;
  if (uploaded?.pasted === pasted) return uploaded.id;
  const id = hex();
  for (const [index, file] of all.entries()) {
    $("train-status").textContent = `sending ${file.name} …`;
    await put(`/app/uploads/${id}/${index}?name=${encodeURIComponent(file.name)}`, file);
  }
  uploaded = { id, pasted };
  return id;
}

async function request() {
  const minutes = number("minutes");
  if (!(minutes > 0)) throw new Error("Minutes must be a number above 0.");
  return {
    upload: await upload(),
    minutes,
    records: $("records").value,
    field: $("field").value.trim() || null,
    from: $("from").value || null,
  };
}

// ---- the plan and the start

async function plan() {
  try {
    const asked = await request();
    $("train-status").textContent = "reading the text and measuring this machine …";
    drawPlan(await post("/app/plan", asked));
  } catch (error) {
    uploaded = null; // the server may have lost it
    throw error;
  } finally {
    $("train-status").textContent = "";
  }
}

function drawPlan(found) {
  const preview = make("pre", { className: "preview", tabIndex: 0, textContent: found.preview });
  preview.setAttribute("role", "region");
  preview.setAttribute("aria-label", "The beginning of the text");
  $("planned").lastElementChild.replaceChildren(
    make("p", { textContent: `${count(found.characters)} characters, ${statistics(found.planned)}` }),
    ...found.notices.map((textContent) => make("p", { textContent })),
    preview,
    choices(found.planned),
  );
  $("planned").open = true;
  $("planned").hidden = false;
}

function statistics(planned) {
  const records = planned.records ? `${count(planned.records)} records, ` : "";
  const repeated = planned.repeated >= 0.01 ? `, ${Math.round(100 * planned.repeated)}% in repeated lines` : "";
  return `${records}${count(planned.distinct)} different tokens${repeated}; xz packs a sample into ${planned.xz_bits_per_token.toFixed(2)} bits/token`;
}

// The settings that charloom chose, with their reasons.
function choices(planned) {
  const cells = (name, texts) => make("tr", {}, ...texts.map((textContent) => make(name, { textContent })));
  const rows = planned.choices.map((choice) => cells("td", [choice.setting.replaceAll("_", " "), String(choice.value), choice.reason]));
  const table = make("table", {}, make("thead", {}, cells("th", ["setting", "value", "reason"])), make("tbody", {}, ...rows));
  const scroll = make("div", { className: "scroll", tabIndex: 0, ariaLabel: "Settings of the plan" }, table);
  scroll.setAttribute("role", "region");
  return scroll;
}

async function train() {
  try {
    $("train-go").disabled = true;
    const { run } = await post("/app/train", await request());
    $("planned").open = false;
    follow(run);
    await poll();
  } catch (error) {
    uploaded = null;
    throw error;
  } finally {
    $("train-status").textContent = "";
    $("train-go").disabled = current !== null;
  }
}

async function resume(run) {
  await post("/app/resume", { run, minutes: null });
  follow(run);
  await poll();
}

// ---- the run that is shown

function follow(run) {
  followed = { run, next: 0, events: [], state: "" };
  $("run").hidden = false;
  $("run").scrollIntoView({ block: "nearest" });
}

async function poll() {
  clearTimeout(timer);
  try {
    const { current: now, runs } = await get("/app/runs");
    const ended = current !== null && now === null;
    current = now;
    if (current && followed?.run !== current) follow(current);
    if (followed) await update();
    drawRuns(runs);
    $("train-stop").disabled = current === null;
    $("train-go").disabled = $("plan").disabled = current !== null;
    if (ended) {
      forget();
      await refresh(followed.run);
    }
    offerModel();
  } catch (error) {
    if ($("problem").hidden) {
      $("problem").textContent = error.message;
      $("problem").hidden = false;
    }
  }
  timer = setTimeout(poll, current === null ? SELDOM : OFTEN);
}

async function update() {
  const found = await get(`/app/runs/${encodeURIComponent(followed.run)}?since=${followed.next}`);
  if (found.next < followed.next || (found.events.length === 0 && found.state === followed.state)) return;
  followed.events.push(...found.events);
  Object.assign(followed, { next: found.next, state: found.state, error: found.error });
  drawRun();
}

const of = (kind) => followed.events.filter((event) => event.event === kind);

function drawRun() {
  const steps = of("step"), validations = of("validation"), samples = of("sample");
  const [started, step, finished] = [of("started").at(-1), steps.at(-1), of("finished").at(-1)];
  const running = followed.state === "training" || followed.state === "reading";
  $("run-title").textContent = `${followed.run}: ${followed.state}`;
  $("progress").value = finished && !running ? 1 : (step?.fraction ?? 0);
  $("left").textContent = !running ? "" : step?.seconds_left != null ? `${duration(step.seconds_left)} left` : "reading the text and planning …";
  $("run-line").textContent = followed.error ?? line(started, step);
  const loss = (events, name) => events.filter((event) => event[name] != null).map((event) => [event.step, event[name]]);
  const points = steps.length ? loss(steps, "train_bits") : loss(validations, "train_bits");
  $("chart").replaceChildren(chart(points, loss(validations, "validation_bits"), $("chart").clientWidth));
  $("verdict").textContent = running ? "" : (finished?.verdict ?? "");
  $("samples").replaceChildren(...samples.slice(-SAMPLES).reverse().map((sample) =>
    make("div", {}, make("h4", { textContent: `step ${count(sample.step)}` }), make("div", { className: "text", textContent: sample.text.replace(/^\s*\n/, "") }))));
  const planned = of("planned").at(-1);
  $("run-plan").hidden = !planned;
  if (planned) $("run-plan").lastElementChild.replaceChildren(make("p", { textContent: statistics(planned) }), choices(planned));
  $("notices").replaceChildren(...of("notice").map((notice) => make("li", { textContent: notice.text })));
}

function line(started, step) {
  if (!started) return "";
  const network = `${started.cell.toUpperCase()}, ${started.layers} × ${started.hidden} units, ${count(started.parameters)} parameters`;
  return step ? `${network}; step ${count(step.step)}, ${count(Math.round(step.tokens_per_second))} characters/s` : network;
}

function offerModel() {
  const name = followed?.run;
  const there = [...$("model").options].some((option) => option.value === name);
  $("open-model").hidden = !there || current === name;
  $("open-model").onclick = () => openModel(name);
}

function openModel(name) {
  $("model").value = name;
  open("generate");
}

// ---- the list of runs

let drawn = "";

function drawRuns(runs) {
  const now = JSON.stringify([runs, current, [...$("model").options].map((option) => option.value)]);
  if (now === drawn) return; // a list that is drawn again loses the keyboard's focus
  drawn = now;
  $("no-runs").hidden = runs.length > 0;
  $("runs").hidden = runs.length === 0;
  $("runs").tBodies[0].replaceChildren(...runs.map(row));
}

function row(run) {
  const cell = (text, label, className = "") => {
    const made = make("td", { textContent: text, className });
    made.dataset.label = text ? label : "";
    return made;
  };
  const state = run.state + (run.error ? `: ${run.error}` : "");
  const trained = run.seconds == null ? "" : `${duration(run.seconds)}${run.minutes ? ` of ${run.minutes} min` : ""}`;
  const texts = run.texts.join(", ") + (run.from ? ` (from ${run.from})` : "");
  return make("tr", {}, cell(run.run, "run"), cell(state, "state"), cell(trained, "trained"), cell(run.best_bits?.toFixed(2) ?? "", "bits/char", "number"), cell(texts, "texts"), make("td", {}, ...actions(run)));
}

function actions(run) {
  const button = (textContent, onclick) => make("button", { type: "button", textContent, onclick, ariaLabel: `${textContent} ${run.run}` });
  const there = [...$("model").options].some((option) => option.value === run.run);
  const found = [button("Show", () => attempt(async () => (follow(run.run), await poll())))];
  if (run.state === "stopped" && current === null) found.push(button("Resume", () => attempt(() => resume(run.run))));
  if (there && current !== run.run)
    found.push(button("Open", () => openModel(run.run)), button("Fine-tune", () => {
      $("from").value = run.run;
      $("from").focus();
    }));
  return found;
}

// ---- what the user does

$("files").onchange = () => {
  choose($("files").files);
  $("files").value = "";
};
$("drop").ondragover = (event) => {
  event.preventDefault();
  $("drop").classList.add("over");
};
$("drop").ondragleave = () => $("drop").classList.remove("over");
$("drop").ondrop = (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  choose(event.dataTransfer.files);
};
$("plan").onclick = () => attempt(plan);
$("train-go").onclick = () => attempt(train);
$("train-stop").onclick = () => attempt(async () => {
  await post("/app/stop", {});
  $("train-status").textContent = "";
});
