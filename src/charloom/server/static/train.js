// The tab Train: texts, the plan, the run in progress, and the list of runs.

import { forget } from "./about.js";
import { open, refresh } from "./app.js";
import { chart } from "./chart.js";
import { $, attempt, count, duration, make, number, tell } from "./page.js";
import { get, post, put } from "./server.js";

const OFTEN = 500, SELDOM = 3000; // milliseconds between two questions: while a run trains, and otherwise
const LARGEST = 256 * 2 ** 20; // bytes of all texts of a run
const SAMPLES = 20; // shown
const MOST_POINTS = 1000; // of a curve; more cannot be seen

let files = []; // those that were chosen
let uploaded = null; // the upload that holds them: { id, files, pasted }
let busy = false; // whether texts are sent, or a plan is made
let current = null; // the run that trains, by its name
let followed = null; // the run that is shown: { run, edition, next, events, state, error }
let states = null; // of all runs, when the models were read
let timer = 0;
let asked = Promise.resolve(); // the last question: one at a time
let complaint = ""; // of a question that failed

const hex = () => [...crypto.getRandomValues(new Uint8Array(8))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

export function begin() {
  timer ||= setTimeout(poll, 0);
}

// ---- texts

function choose(more) {
  files = [...files, ...more];
  drawFiles();
}

function drawFiles() {
  const rows = files.map((file) => {
    const remove = make("button", { type: "button", textContent: "Remove", ariaLabel: `Remove ${file.name}` });
    remove.onclick = () => {
      files = files.filter((other) => other !== file);
      drawFiles();
    };
    return make("li", {}, `${file.name}, ${count(file.size)} bytes `, remove);
  });
  $("chosen").replaceChildren(...rows);
}

// Sends the texts to the server, unless it has them, and returns the name of the upload.
async function upload() {
  const chosen = files, pasted = $("pasted").value;
  const all = pasted.trim() ? [...chosen, new File([pasted], "pasted.txt")] : chosen;
  const size = all.reduce((sum, file) => sum + file.size, 0);
  if (!all.length) throw new Error("A run needs a text: drop a file, choose one, or paste a text.");
  if (size > LARGEST) throw new Error(`The texts may have ${count(LARGEST)} bytes together; these have ${count(size)}. \`charloom train\` in a terminal has no such limit.`);
  if (uploaded?.files === chosen && uploaded.pasted === pasted) return uploaded.id;
  const id = hex();
  for (const [index, file] of all.entries()) {
    $("train-status").textContent = `sending ${file.name} …`;
    await put(`/app/uploads/${id}/${index}?name=${encodeURIComponent(file.name)}`, file);
  }
  uploaded = { id, files: chosen, pasted };
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

// Does something with the texts. Meanwhile neither a second plan nor a run can begin here.
async function withTexts(action) {
  busy = true;
  enable();
  try {
    await action(await request());
  } catch (error) {
    uploaded = null; // the server may have lost it
    throw error;
  } finally {
    busy = false;
    $("train-status").textContent = "";
    enable();
  }
}

function enable() {
  $("train-go").disabled = $("plan").disabled = busy || current !== null;
  $("train-stop").disabled = current === null;
}

async function plan(body) {
  $("train-status").textContent = "reading the text and measuring this machine …";
  drawPlan(await post("/app/plan", body));
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

async function train(body) {
  const { run } = await post("/app/train", body);
  $("planned").open = false;
  follow(run);
  await poll();
}

async function resume(run) {
  await post("/app/resume", { run, minutes: null });
  follow(run);
  await poll();
}

// ---- the run that is shown

function follow(run) {
  followed = { run, edition: "", next: 0, events: [], state: "" };
  $("samples").replaceChildren();
  $("run-plan").hidden = true;
  $("run").hidden = false;
  $("run").scrollIntoView({ block: "nearest" });
}

// Asks the server for news, after the question before has its answer.
function poll() {
  asked = asked.then(ask);
  return asked;
}

async function ask() {
  clearTimeout(timer);
  try {
    const { current: now, runs } = await get("/app/runs");
    if (now !== null && now !== current) follow(now);
    current = now;
    enable();
    if (followed && (followed.run === current || !["finished", "stopped", "failed"].includes(followed.state))) await update(followed);
    const found = JSON.stringify(runs.map((run) => [run.run, run.state]));
    if (found !== states) {
      forget();
      await refresh(); // a run that ended has a model
      states = found;
    }
    drawRuns(runs);
    offerModel();
    if (complaint && $("problem").textContent === complaint) tell();
    complaint = "";
  } catch (error) {
    if ($("problem").hidden) tell((complaint = error.message));
  }
  timer = setTimeout(poll, current === null ? SELDOM : OFTEN);
}

// Reads the new events of a run. If the server dropped some, all are read again.
async function update(one) {
  for (let more = true; more; ) {
    const found = await get(`/app/runs/${encodeURIComponent(one.run)}?since=${one.next}`);
    if (one !== followed) return;
    if (found.edition !== one.edition && one.next > 0) {
      Object.assign(one, { edition: found.edition, next: 0, events: [] });
      continue;
    }
    one.events.push(...found.events);
    more = found.events.length > 0;
    Object.assign(one, { edition: found.edition, next: found.next, state: found.state, error: found.error });
  }
  drawRun(one);
}

function drawRun(one) {
  const of = (kind) => one.events.filter((event) => event.event === kind);
  const steps = of("step"), validations = of("validation");
  const [started, step, finished, planned] = [of("started").at(-1), steps.at(-1), of("finished").at(-1), of("planned").at(-1)];
  const unit = started?.unit ?? "char";
  const running = one.state === "training" || one.state === "reading";
  $("run-title").textContent = `${one.run}: ${one.state}`;
  $("progress").value = finished && !running ? 1 : (step?.fraction ?? 0);
  $("left").textContent = !running ? "" : step?.seconds_left != null ? `${duration(step.seconds_left)} left` : "reading the text and planning …";
  $("run-line").textContent = one.error ?? line(started, step, unit);
  const loss = (events, name) => thinned(events.filter((event) => event[name] != null).map((event) => [event.step, event[name]]));
  const points = steps.length ? loss(steps, "train_bits") : loss(validations, "train_bits");
  $("chart").replaceChildren(chart(points, loss(validations, "validation_bits"), unit, $("chart").clientWidth));
  setText($("verdict"), one.state === "stopped" ? "Stopped and saved. Resume continues it." : one.state === "finished" ? (finished?.verdict ?? "") : "");
  addSamples(of("sample"));
  if (planned && $("run-plan").hidden) {
    $("run-plan").lastElementChild.replaceChildren(make("p", { textContent: statistics(planned) }), choices(planned));
    $("run-plan").hidden = false;
  }
  setText($("notices"), of("notice").map((notice) => notice.text).join("\n"));
}

// A live region speaks each time that its text is set, so it is set only if it changes.
function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const thinned = (points) => {
  const each = Math.ceil(points.length / MOST_POINTS);
  return points.filter((_, index) => index % each === 0 || index === points.length - 1);
};

// The newest first. Those that are there stay, so that a selection in them stays too.
function addSamples(samples) {
  const place = $("samples");
  for (const sample of samples.slice(-SAMPLES)) {
    const title = `step ${count(sample.step)}`;
    if ([...place.children].some((other) => other.firstElementChild.textContent === title)) continue;
    const text = sample.text.replace(/^\s*\n/, "");
    place.prepend(make("div", {}, make("h4", { textContent: title }), make("div", { className: "text", textContent: text })));
  }
  while (place.children.length > SAMPLES) place.lastElementChild.remove();
}

function line(started, step, unit) {
  if (!started) return "";
  const network = `${started.cell.toUpperCase()}, ${started.layers} × ${started.hidden} units, ${count(started.parameters)} parameters`;
  const units = unit === "char" ? "characters" : `${unit}s`;
  return step ? `${network}; step ${count(step.step)}, ${count(Math.round(step.tokens_per_second))} ${units}/s` : network;
}

const hasModel = (name) => [...$("model").options].some((option) => option.value === name);

function offerModel() {
  const name = followed?.run;
  $("open-model").hidden = !hasModel(name) || current === name;
  $("open-model").onclick = () => openModel(name);
}

function openModel(name) {
  $("model").value = name;
  open("generate");
}

// ---- the list of runs

const rows = new Map(); // of the table, by run

function drawRuns(runs) {
  $("no-runs").hidden = runs.length > 0;
  $("runs").hidden = runs.length === 0;
  const drawn = runs.map((run) => {
    if (!rows.has(run.run)) rows.set(run.run, make("tr", {}, ...Array.from({ length: 6 }, () => make("td"))));
    fill(rows.get(run.run), run);
    return rows.get(run.run);
  });
  const body = $("runs").tBodies[0]; // a row that stays keeps the keyboard's focus
  if (drawn.length !== body.rows.length || drawn.some((row, index) => row !== body.rows[index])) body.replaceChildren(...drawn);
}

function fill(row, run) {
  const trained = run.seconds == null ? "" : `${duration(run.seconds)}${run.minutes ? ` of ${run.minutes} min` : ""}`;
  const texts = [
    ["run", run.run],
    ["state", run.state + (run.error ? `: ${run.error}` : "")],
    ["trained", trained],
    ["loss", run.best_bits == null ? "" : `${run.best_bits.toFixed(2)} bits/${run.unit}`],
    ["texts", run.texts.join(", ") + (run.from ? ` (from ${run.from})` : "")],
  ];
  texts.forEach(([label, text], index) => {
    setText(row.cells[index], text);
    row.cells[index].dataset.label = text ? label : "";
  });
  const buttons = actions(run);
  const names = buttons.map(([name]) => name).join();
  if (row.dataset.actions === names) return;
  row.dataset.actions = names;
  row.cells[5].replaceChildren(...buttons.map(([textContent, action]) =>
    make("button", { type: "button", textContent, ariaLabel: `${textContent} ${run.run}`, onclick: () => attempt(action) })));
}

// What can be done with a run: names and functions.
function actions({ run, state }) {
  const found = [["Show", () => (follow(run), poll())]];
  if (state === "stopped" && current === null) found.push(["Resume", () => resume(run)]);
  if (hasModel(run) && current !== run) found.push(["Open", () => openModel(run)], ["Fine-tune", () => fineTune(run)]);
  return found;
}

function fineTune(run) {
  $("from").value = run;
  $("from").focus();
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
$("plan").onclick = () => attempt(() => withTexts(plan));
$("train-go").onclick = () => attempt(() => withTexts(train));
$("train-stop").onclick = () => attempt(() => post("/app/stop", {}));
