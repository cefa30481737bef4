"use strict";
// Two runs side by side: what they have in common, what differs, what of it is more than chance, and their charts.
{
  const { element, ask, fixed, table, scrolling, energyChart, paretoChart, latencyCharts, pageOf } = specfleet;

  /** Lines that only one of two scenarios has, in the order of the first. */
  function different(a, b) {
    const [left, right] = [a, b].map((text) => text.split("\n"));
    const missing = (lines, others) => {
      const have = new Set(others);
      return lines.filter((line) => line.trim() !== "" && !have.has(line));
    };
    return [missing(left, right), missing(right, left)];
  }

  /** The figures that both runs have of a method: first, second and what the second changes. */
  function figures(a, b, name) {
    const [ours, theirs] = [a, b].map((report) => report.methods.find((method) => method.name === name));
    return a.table.flatMap(({ key, title, unit, statistic, factor, decimals }) => {
      const [left, right] = [ours, theirs].map((method) => method?.metrics[key]?.[statistic]);
      if (!Number.isFinite(left) || !Number.isFinite(right)) return [];
      const difference = (right - left) * factor;
      const share = left === 0 ? "" : fixed((100 * (right - left)) / Math.abs(left), 1);
      return [[unit ? `${title}, ${unit}` : title, fixed(left * factor, decimals), fixed(right * factor, decimals), `${difference > 0 ? "+" : ""}${fixed(difference, decimals)}`, share]];
    });
  }

  /** A number with four significant digits, as the command prints it. */
  function significant(value) {
    return fixed(value, value === 0 ? 0 : Math.min(9, Math.max(0, 3 - Math.floor(Math.log10(Math.abs(value))))));
  }

  /** What the answers to the same prompts say of a method: every metric with its interval. */
  function differences({ rows }, name) {
    return rows.filter((row) => row.method_a === name && row.method_b === name).map((row) => [
      [row.metric, element("span", { class: "unit" }, row.unit)],
      row.pairs,
      significant(row.mean_a),
      significant(row.mean_b),
      row.low === null
        ? `${significant(-row.difference)} [one prompt]`
        : `${significant(-row.difference)} [${significant(-row.high)}, ${significant(-row.low)}]`,
      row.effect === null ? "" : fixed(-row.effect, 2),
      row.adjusted_p_value === null ? "" : row.adjusted_p_value < 0.001 ? "< 0.001" : fixed(row.adjusted_p_value, 3),
      row.adjusted_p_value === null ? "one run each" : row.significant ? "yes" : "no",
    ]);
  }

  /** The figures of one method at a time, chosen from those that both have. */
  function methods(a, b, paired) {
    const names = a.methods.map((method) => method.name).filter((name) => b.methods.some((method) => method.name === name));
    if (names.length === 0) return element("p", { class: "soft" }, "The runs have no method in common.");
    const select = element("select", { id: "method", name: "method" }, names.map((name) => element("option", { value: name }, name)));
    select.value = names.includes("ui-hlm") ? "ui-hlm" : names[0];
    const box = element("div", {});
    const pairs = () => paired.refused !== undefined
      ? [element("p", { class: "soft" }, `No pairs: ${paired.refused}.`)]
      : [
          element("p", { class: "soft small" }, "Means over the prompts that both answered. Difference: second minus first, with its 95 % interval by bootstrap; p by sign flips over prompts, after Holm. One run each: the figure follows the host or the seed, and its interval is over prompts, within these runs; repeated runs (run --repeat 5) show how far runs differ."),
          scrolling("Differences paired by prompt", table({
            caption: `Differences of ${select.value}, paired by prompt`,
            columns: ["metric", "prompts", "first", "second", ["difference", "95 % interval"], ["effect", "d_z"], "p", ["differs", "at 5 %"]],
            rows: differences(paired.of, select.value),
          })),
          ...paired.of.notes.map((note) => element("p", { class: "soft small" }, note)),
        ];
    const show = () => box.replaceChildren(
      element("h3", {}, "Paired by prompt"),
      ...pairs(),
      element("h3", {}, "Each run by itself"),
      element("p", { class: "soft small" }, "Means and percentiles of the whole runs. Difference: second minus first; how much of it is chance is not said here."),
      scrolling("Figures of both runs", table({
        caption: `Figures of ${select.value} in both runs`,
        columns: ["figure", "first", "second", "difference", ["change", "%"]],
        rows: figures(a, b, select.value),
      })),
    );
    select.addEventListener("change", show);
    show();
    return element("div", { class: "card" },
      element("div", { class: "controls" }, element("div", {}, element("label", { for: "method" }, "Method"), select)),
      box);
  }

  function facts(a, b) {
    const of = ({ run }) => ({ state: run.state, kind: run.kind_name, seed: run.seed, devices: run.devices, verifiers: run.verifiers, scenario: run.scenario_hash.slice(0, 16), machine: `${run.machine.cpu}, ${run.machine.cores} cores` });
    const [left, right] = [of(a), of(b)];
    return Object.keys(left).map((key) => [key, String(left[key]), String(right[key]), left[key] === right[key] ? "equal" : "differs"]);
  }

  function show(place, answer) {
    const { a, b, paired } = answer;
    const [onlyA, onlyB] = different(a.run.scenario, b.run.scenario);
    const names = [a.run.name, b.run.name];
    const side = (report) => element("div", {}, element("h3", {}, element("a", { href: pageOf(report.run.name) }, report.run.name)),
      element("p", {}, element("span", { class: `badge ${report.validity.state === "VALID" ? "good" : "bad"}` }, report.validity.state)), energyChart(report), paretoChart(report), latencyCharts(report)[0]);
    place.replaceChildren(
      element("div", { class: "card" }, scrolling("What the runs are", table({ caption: "What the two runs are", words: true, columns: ["", ["first", names[0]], ["second", names[1]], ""], rows: facts(a, b) }))),
      element("h2", {}, "Figures"),
      methods(a, b, paired),
      element("h2", {}, "Scenarios"),
      onlyA.length + onlyB.length === 0
        ? element("p", { class: "soft" }, "Both runs have the same scenario.")
        : element("div", { class: "pair" }, [[names[0], onlyA], [names[1], onlyB]].map(([name, lines]) =>
            element("div", {}, element("h3", {}, `Only in ${name}`), element("pre", { tabindex: "0", role: "region", "aria-label": `Only in ${name}` }, lines.join("\n") || "nothing")))),
      element("h2", {}, "Charts"),
      element("div", { class: "pair" }, side(a), side(b)),
    );
  }

  specfleet.comparePage = async (main, query) => {
    document.title = "Compare · specfleet";
    const place = element("div", {});
    const said = element("p", { role: "status" });
    const choice = (id, label) => {
      const select = element("select", { id, name: id });
      return { select, made: element("div", { class: "wide" }, element("label", { for: id }, label), select) };
    };
    const [first, second] = [choice("a", "First run"), choice("b", "Second run")];
    const go = element("button", { class: "main", type: "submit" }, "Compare");
    const compare = async () => {
      const [a, b] = [first.select.value, second.select.value];
      if (!a || !b) return;
      said.className = "soft";
      said.textContent = "Reading both runs.";
      place.replaceChildren();
      try {
        const answer = await ask(`api/compare?${new URLSearchParams({ a, b })}`);
        said.textContent = `${a} and ${b}.`;
        show(place, answer);
      } catch (error) {
        said.className = "error";
        said.textContent = error.message;
      }
    };
    const submitted = (event) => {
      event.preventDefault();
      history.replaceState(null, "", `?${new URLSearchParams({ a: first.select.value, b: second.select.value })}`);
      compare();
    };
    main.append(element("h1", {}, "Compare two runs"), element("form", { class: "controls", onsubmit: submitted }, first.made, second.made, go), said, place);
    try {
      const { runs } = await ask("api/runs?limit=500");
      const readable = runs.filter((run) => run.state !== "unreadable" && run.state !== "running");
      const names = new Set([query.get("a"), query.get("b"), ...readable.map((run) => run.run)].filter(Boolean));
      for (const { select } of [first, second]) select.append(...[...names].map((name) => element("option", { value: name }, name)));
      if (names.size < 2) said.textContent = "There are no two runs that have ended yet.";
      first.select.value = query.get("a") ?? [...names][0] ?? "";
      second.select.value = query.get("b") ?? [...names][1] ?? "";
      if (query.get("a") && query.get("b")) await compare();
    } catch (error) {
      said.className = "error";
      said.textContent = error.message;
    }
  };
}
