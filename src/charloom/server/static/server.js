// Requests to the server of this page. Every problem is an Error with one line for the user. temporary: whether it may
// help to ask again.

import { $ } from "./page.js";

const KEY = "charloom-key";

function headers(further = {}) {
  const key = sessionStorage.getItem(KEY);
  return key ? { authorization: `Bearer ${key}`, ...further } : further;
}

async function send(path, options) {
  let answer;
  try {
    answer = await fetch(path, { ...options, headers: headers(options.headers) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw problem("The server does not answer. Is it still running?", true);
  }
  if (answer.ok) return answer;
  if (answer.status === 401) $("key-form").hidden = false;
  const found = await answer.json().catch(() => null);
  const text = found?.error ? line(found.error) : `The server answered with status ${answer.status}.`;
  throw problem(text, answer.status === 503);
}

const problem = (text, temporary) => Object.assign(new Error(text), { temporary });

// The line of an error. Its remedies are for programs, so the page names its own.
function line({ message, code }) {
  if (code !== "unknown_character") return message;
  return `${message.split("; pass ")[0]}; change the text, or tick “leave out characters that the model does not know”`;
}

const posted = (body) => ({
  method: "POST",
  headers: { "content-type": "application/json" },
  body: JSON.stringify(body),
});

export const get = async (path) => (await send(path, {})).json();
export const post = async (path, body, signal) => (await send(path, { ...posted(body), signal })).json();
export const put = async (path, body) => (await send(path, { method: "PUT", body })).json();
export const download = async (path) => (await send(path, {})).blob();

export function useKey(key) {
  if (!/^[!-~]+$/.test(key)) throw new Error("A key has letters, digits and signs of ASCII only, without spaces.");
  sessionStorage.setItem(KEY, key);
}

// The chunks of a stream of completions, one object each.
export async function* stream(body, signal) {
  const answer = await send("/v1/completions", { ...posted({ ...body, stream: true }), signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) throw new Error("The server stopped before the text was complete.");
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const data = event.replace(/^data: /, "");
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Error(line(chunk.error));
      yield chunk;
    }
  }
}
