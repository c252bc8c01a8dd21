// The curve of a run: bits per character of training and validation, over the steps.

const SPACE = "http://www.w3.org/2000/svg";
const NARROWEST = 280, HEIGHT = 240, LEFT = 40, RIGHT = 12, TOP = 12, BOTTOM = 34;
const LINES = 4; // of the grid, about

function shape(name, attributes, text = "") {
  const made = document.createElementNS(SPACE, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

// A round distance between lines of the grid.
function spacing(range) {
  const rough = range / LINES;
  const power = 10 ** Math.floor(Math.log10(rough));
  return power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
}

// training, validation: lists of [step, bits]; unit: of a token; room: pixels
export function chart(training, validation, unit, room) {
  const width = Math.max(NARROWEST, room);
  const points = [...training, ...validation];
  const svg = shape("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img" });
  svg.setAttribute("aria-label", described(training, validation, unit));
  if (points.length < 2) return svg;
  const high = Math.max(...points.map(([, value]) => value)), low = Math.min(...points.map(([, value]) => value));
  const gap = spacing(Math.max(high - low, 0.1));
  const [bottom, top] = [Math.floor(low / gap) * gap, Math.ceil(high / gap) * gap];
  const last = Math.max(1, ...points.map(([step]) => step));
  const x = (step) => LEFT + ((width - LEFT - RIGHT) * step) / last;
  const y = (value) => TOP + ((HEIGHT - TOP - BOTTOM) * (top - value)) / (top - bottom);
  for (let value = bottom; value <= top + gap / 2; value += gap) {
    svg.append(shape("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }));
    svg.append(shape("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, value.toFixed(gap < 0.1 ? 2 : 1)));
  }
  svg.append(shape("line", { class: "axis", x1: LEFT, x2: width - RIGHT, y1: HEIGHT - BOTTOM, y2: HEIGHT - BOTTOM }));
  svg.append(shape("text", { x: LEFT, y: HEIGHT - BOTTOM + 14 }, "0"));
  svg.append(shape("text", { x: width - RIGHT, y: HEIGHT - BOTTOM + 14, "text-anchor": "end" }, `step ${last.toLocaleString("en-US")}`));
  for (const [name, data] of [["training", training], ["validation", validation]])
    svg.append(shape("polyline", { class: name, points: data.map(([step, value]) => `${x(step)},${y(value)}`).join(" ") }));
  for (const [step, value] of validation) svg.append(shape("circle", { class: "dot", cx: x(step), cy: y(value), r: 3 }));
  const key = HEIGHT - 6, middle = width / 2;
  for (const [name, text, x1] of [["training", "training", middle - 120], ["validation", `validation, bits/${unit}`, middle - 20]])
    svg.append(shape("line", { class: name, x1, x2: x1 + 20, y1: key - 4, y2: key - 4 }), shape("text", { x: x1 + 26, y: key }, text));
  return svg;
}

function described(training, validation, unit) {
  const end = (data) => (data.length ? `${data.at(-1)[1].toFixed(2)} bits per ${unit}` : "not known yet");
  return `Curve of the losses. Training: ${end(training)}. Validation: ${end(validation)}.`;
}
