"use strict";
// What comes from the server: questions with their answers, and the stream of events.
{
  /** The first page's address, from this script's own: a proxy may have put the dashboard below any path. */
  const root = new URL("..", document.currentScript.src);

  /** The address of something that the dashboard serves, by its path from the first page. */
  const addressOf = (path) => new URL(path, root).href;

  /** Asks for JSON. A refusal is an error with the server's words. */
  async function ask(path) {
    let answer;
    try {
      answer = await fetch(addressOf(path), { headers: { accept: "application/json" } });
    } catch {
      throw new Error("the dashboard does not answer: has it been stopped?");
    }
    const content = await answer.json().catch(() => null);
    if (!answer.ok) {
      const error = new Error(content?.error?.message ?? `the dashboard answered ${answer.status}`);
      error.kind = content?.error?.kind;
      throw error;
    }
    return content;
  }

  const listeners = { live: new Set(), runs: new Set() };
  const last = {};

  /** Calls `listener` with each event of this kind, and at once with the last one. */
  function listen(kind, listener) {
    listeners[kind].add(listener);
    if (last[kind]) listener(last[kind]);
    return () => listeners[kind].delete(listener);
  }

  /** Opens the stream; the browser opens it again when it breaks, unless the server refuses. */
  function connect() {
    const state = document.getElementById("connection");
    const say = (words) => {
      if (state.textContent !== words) state.textContent = words;
    };
    const source = new EventSource(addressOf("events"));
    source.onopen = () => say("live");
    source.onerror = () => {
      if (source.readyState !== EventSource.CLOSED) return say("connection lost, trying again");
      say("no live figures: too many pages are open, or the dashboard was stopped; trying again");
      setTimeout(connect, 5000);
    };
    for (const kind of Object.keys(listeners)) {
      source.addEventListener(kind, (event) => {
        last[kind] = JSON.parse(event.data);
        for (const listener of [...listeners[kind]]) listener(last[kind]);
      });
    }
    addEventListener("pagehide", () => source.close(), { once: true });
  }

  const pageOf = (run) => addressOf(`runs/${encodeURIComponent(run)}`);
  const apiOf = (run) => addressOf(`api/runs/${encodeURIComponent(run)}`);

  Object.assign(specfleet, { root, addressOf, ask, listen, connect, pageOf, apiOf });
}
