"use strict";
// The list of runs: filtered, newest first, two of them picked to compare; what is running stands above it.
{
  const { element, ask, addressOf, listen, count, moment, livePanel, pageOf } = specfleet;

  const STATES = ["any", "running", "completed", "interrupted", "failed", "unreadable"];
  const PAGE = 100;

  const badge = (state) => element("span", { class: `badge ${state === "completed" ? "good" : state === "running" ? "plain" : state === "interrupted" ? "plain" : "bad"}` }, state);

  specfleet.runsPage = (main) => {
    document.title = "Runs · specfleet";
    const text = element("input", { type: "search", id: "filter", name: "filter", autocomplete: "off", placeholder: "name, method, tag, kind", maxlength: "200" });
    const state = element("select", { id: "state", name: "state" }, STATES.map((name) => element("option", { value: name === "any" ? "" : name }, name)));
    const compare = element("button", { type: "button", class: "main", disabled: true }, "Compare two");
    const said = element("p", { class: "soft small", role: "status" });
    const rows = element("tbody");
    const more = element("button", { type: "button", hidden: true }, "Show more");
    const live = element("div", { "aria-live": "off" });
    let shown = PAGE;
    let picked = [];
    let asked = 0;

    const pick = (run, chosen) => {
      picked = picked.filter((other) => other !== run);
      if (chosen) picked.push(run);
      compare.disabled = picked.length !== 2;
      compare.textContent = picked.length === 2 ? "Compare the two" : `Compare two (${picked.length} picked)`;
    };

    const row = (run) => {
      const readable = run.state !== "unreadable";
      const box = element("input", { type: "checkbox", "aria-label": `Pick ${run.run} to compare`, onchange: (event) => pick(run.run, event.target.checked) });
      box.checked = picked.includes(run.run);
      const cell = (label, ...content) => element("td", { "data-label": label }, content);
      const name = readable ? element("a", { href: pageOf(run.run) }, run.run) : run.run;
      const reason = run.reason ? element("div", { class: "small error" }, run.reason) : null;
      return element(
        "tr",
        { "data-run": run.run },
        element("td", { class: "pick" }, readable && run.state !== "running" ? box : null),
        element("th", { scope: "row" }, name, reason),
        cell("", badge(run.state), run.noise ? element("div", { class: "small error" }, run.noise) : null),
        cell("kind", run.kind),
        cell("started", moment(run.started)),
        cell("devices", count(run.devices)),
        cell("verifiers", count(run.verifiers)),
        cell("answers", count(run.generations)),
        element("td", { class: "wrap small", "data-label": "methods" }, run.methods.join(", ")),
        element("td", { class: "small", "data-label": "tags" }, run.tags.join(", ")),
      );
    };

    const load = async () => {
      const turn = (asked += 1);
      const query = new URLSearchParams({ text: text.value, state: state.value, limit: shown });
      try {
        const listed = await ask(`api/runs?${query}`);
        if (turn !== asked) return;
        const focused = document.activeElement?.closest?.("tr")?.dataset.run;
        const kind = document.activeElement?.tagName;
        rows.replaceChildren(...listed.runs.map(row));
        // A list that is drawn again keeps the keyboard where it was.
        if (focused) rows.querySelector(`tr[data-run="${CSS.escape(focused)}"] ${kind === "A" ? "a" : "input"}`)?.focus();
        more.hidden = listed.runs.length >= listed.matched;
        const missing = listed.matched > listed.runs.length ? `, the newest ${count(listed.runs.length)} shown` : "";
        said.className = "soft small";
        said.textContent = listed.total === 0
          ? `No runs in ${listed.ledger} yet: specfleet run makes one.`
          : `${count(listed.matched)} of ${count(listed.total)} runs in ${listed.ledger}${missing}.`;
      } catch (error) {
        if (turn !== asked) return;
        said.className = "error";
        said.textContent = error.message;
      }
    };

    let waiting;
    const soon = () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => {
        shown = PAGE;
        load();
      }, 150);
    };
    text.addEventListener("input", soon);
    state.addEventListener("change", soon);
    more.addEventListener("click", () => {
      shown = Math.min(shown + PAGE, 500);
      load();
    });
    compare.addEventListener("click", () => location.assign(addressOf(`compare?${new URLSearchParams({ a: picked[0], b: picked[1] })}`)));

    const panels = new Map();
    listen("live", ({ runs }) => {
      for (const [run, panel] of panels) {
        if (runs.some((other) => other.run === run)) continue;
        panel.section.remove();
        panels.delete(run);
      }
      for (const { run, live: figures } of runs) {
        if (!panels.has(run)) {
          const panel = livePanel(run);
          panel.section = element("div", {}, element("h2", {}, "Running: ", element("a", { href: pageOf(run) }, run)), panel.made);
          live.append(panel.section);
          panels.set(run, panel);
        }
        panels.get(run).update(figures);
      }
    });
    listen("runs", load);

    main.append(
      element("h1", {}, "Runs"),
      live,
      element("h2", { class: "hidden" }, "All runs"),
      element(
        "form",
        { class: "controls", role: "search", onsubmit: (event) => event.preventDefault() },
        element("div", { class: "wide" }, element("label", { for: "filter" }, "Filter"), text),
        element("div", {}, element("label", { for: "state" }, "State"), state),
        compare,
      ),
      said,
      element("div", { class: "card scroll", tabindex: "0", role: "region", "aria-label": "List of runs" },
        element("table", { class: "words stack" },
          element("thead", {}, element("tr", {}, ["", "run", "state", "kind", "started", "devices", "verifiers", "answers", "methods", "tags"].map((name) =>
            element("th", { scope: "col" }, name === "" ? element("span", { class: "hidden" }, "pick") : name)))),
          rows)),
      more,
    );
    load();
  };
}
