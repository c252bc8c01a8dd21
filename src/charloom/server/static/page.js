// Small functions for the elements of the page. Text from models, files and the server is always set as text, never as
// HTML.

export const $ = (id) => document.getElementById(id);

// An element with properties, such as make("button", { textContent: "Go", onclick }), and children.
export function make(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

// Shows one line about something that went wrong; without a line, hides it.
export function tell(line = "") {
  $("problem").textContent = line;
  $("problem").hidden = !line;
}

// Runs an action of the user. A problem becomes a line on the page.
export async function attempt(action) {
  tell();
  try {
    return await action();
  } catch (error) {
    if (error.name !== "AbortError") tell(error.message);
  }
}

export const number = (id) => ($(id).value.trim() === "" ? null : Number($(id).value));
export const count = (value) => value.toLocaleString("en-US");
export const bits = (nats) => nats / Math.LN2;

// "3 min 20 s"
export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const hours = Math.floor(whole / 3600), minutes = Math.floor(whole / 60) % 60;
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min ${whole % 60} s` : `${whole} s`;
}

// A character for people: marks for what cannot be seen.
export function visible(character) {
  if (character.endsWith("\n")) return character.replaceAll("\n", "↵");
  if (character === "\t") return "→";
  if (character === " ") return "␣";
  return /^[\p{C}\p{Z}]$/u.test(character) ? "·" : character;
}

