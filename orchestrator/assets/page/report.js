"use strict";
// The report of a run: what it is, whether it can be trusted, its figures and its charts.
{
  const { element, count, duration, moment, fixed, table, scrolling, methodTable, fresh } = specfleet;

  /** VALID or INVALID with the reasons, and what disturbed the run too much. */
  function validity({ state, problems }, noise) {
    const good = state === "VALID";
    return [
      noise ? element("p", {}, element("span", { class: "badge bad" }, "NOISY"), noise.replace(/^NOISY:/, "")) : null,
      element("p", {}, element("span", { class: `badge ${good ? "good" : "bad"}` }, state), good ? " Every account of the run closes." : " Do not use these figures:"),
      problems.length > 0 ? element("ul", { class: "problems" }, problems.map((problem) => element("li", {}, problem))) : null,
    ];
  }

  /** What the run was: enough to repeat it. */
  function facts(run) {
    const { machine } = run;
    const memory = machine.memory_bytes > 0 ? `, ${fixed(machine.memory_bytes / 2 ** 30, 1)} GiB` : "";
    const entries = [
      ["Run", run.name],
      ["State", run.reason ? `${run.state}: ${run.reason}` : run.state],
      ["Kind", run.kind?.simulated ? `simulated (${run.kind.simulated.fidelity}, costs ${run.kind.simulated.cost})` : run.kind_name],
      ["Started", moment(run.started)],
      ["Took", duration(run.wall_seconds ?? run.ended - run.started)],
      ["Devices", count(run.devices)],
      ["Verifiers", count(run.verifiers)],
      ["Stored", `${count(run.rounds)} rounds, ${count(run.batches)} batches`],
      [run.seeds > 1 ? "Seeds" : "Seed", run.seeds > 1 ? `${run.seed} to ${run.seed + run.seeds - 1}` : String(run.seed)],
      ["Passes", run.repeat > 1 ? `${count(run.repeat)} with the same seed` : ""],
      ["Scenario", `${run.scenario_hash.slice(0, 16)}…`],
      ["Batches are charged", `${run.pool_cost} times`],
      ["Versions", Object.entries(run.versions).map(([name, version]) => `${name} ${version}`).join(", ")],
      ["Machine", `${machine.cpu || "unknown processor"}, ${count(machine.cores)} cores${memory}, ${machine.os} ${machine.arch}`],
      ["Tags", run.tags.join(", ")],
    ];
    return element("dl", { class: "facts" }, entries.filter(([, value]) => value).map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));
  }

  function counts({ generations, uploads_sent, uploads_answered, uploads_refused, uploads_cancelled, faults_injected, ...ends }) {
    const early = Object.entries({ failed: "failed", dropped: "dropped", left: "left", battery: "out of battery" })
      .filter(([key]) => ends[key] > 0).map(([key, words]) => `${count(ends[key])} ${words}`);
    const uploads = `uploads: ${count(uploads_sent)} sent = ${count(uploads_answered)} answered + ${count(uploads_refused)} refused + ${count(uploads_cancelled)} cancelled`;
    return `${count(generations)} generations${early.length > 0 ? ` (${early.join(", ")})` : ""} · ${uploads} · faults injected: ${count(faults_injected)}`;
  }

  /** Methods against each other, paired by prompt. */
  function paired(comparisons) {
    const interval = (value, factor, decimals) => {
      if (!value) return "";
      const signed = (number) => `${number > 0 ? "+" : ""}${fixed(number * factor, decimals)}`;
      if (value.low === null) return `${signed(value.mean)} [one prompt]`;
      return `${signed(value.mean)} [${signed(value.low)}, ${signed(value.high)}]`;
    };
    const share = (value) => (Number.isFinite(value) ? `${value > 0 ? "+" : ""}${fixed(100 * value, 1)}` : "");
    const what = "Difference of ui-hlm to each other method on the same prompts and random numbers, with 95 % bootstrap intervals.";
    const over = [...new Set(comparisons.map((row) => row.joules_per_token?.over).filter(Boolean))];
    const sure = over.length > 0 ? ` Intervals of energy are over ${over.join(", ")}.` : "";
    return [element("p", { class: "soft small" }, what + sure), scrolling("ui-hlm against the other methods", table({
      caption: what,
      columns: ["ui-hlm against", "prompts", ["energy", "mJ per token [95 %]"], ["energy", "%"], ["exact match", "points [95 %]"]],
      rows: comparisons.map((row) => [row.against, count(row.prompts), interval(row.joules_per_token, 1e3, 1), share(row.energy_share), interval(row.exact_match, 100, 1)]),
    }))];
  }

  /** What each method uploads, with the numbers that calibration resolved. */
  function rules(report) {
    return scrolling("What each method uploads", table({
      caption: "What each method uploads, with its thresholds as numbers",
      words: true,
      columns: ["method", "uploads", "as", "drafts per upload"],
      rows: report.rules.map((rule) => [rule.method, rule.uploads, rule.payload, count(rule.block)]),
    }));
  }

  /** Means with their intervals over passes, where the run has several. */
  function intervals(report) {
    const shown = report.table.filter(({ key, statistic }) => statistic === "mean" && report.methods.some(({ metrics }) => metrics[key]?.interval));
    if (shown.length === 0) return null;
    const passes = report.run.seeds > 1 ? `${report.run.seeds} seeds` : `${report.run.repeat} passes`;
    const cell = (metric, factor, decimals) => {
      if (!metric?.interval) return "";
      const [mean, low, high] = [metric.mean, metric.interval.low, metric.interval.high].map((value) => fixed(value * factor, decimals));
      return `${mean} [${low}, ${high}]`;
    };
    return [element("h3", { class: "apart" }, `Means over ${passes} with their 95 % intervals`), scrolling("Means with intervals", table({
      caption: `Means over ${passes} and all prompts, with 95 % bootstrap intervals`,
      columns: ["method", ...shown.map(({ title, unit }) => (unit ? [title, unit] : title))],
      rows: report.methods.map(({ name, metrics }) => [name, ...shown.map(({ key, factor, decimals }) => cell(metrics[key], factor, decimals))]),
    }))];
  }

  function charts(report) {
    const { energyChart, paretoChart, latencyCharts, batchChart, riskChart, timelineChart, deviceCharts, positionChart, answerChart, damageChart } = specfleet;
    const group = (title, made) => [element("h2", {}, title), element("div", { class: made.length > 1 ? "grid" : undefined }, made)];
    return [
      group("Energy and accuracy", [energyChart(report), paretoChart(report)]),
      group("Latency and batches", [...latencyCharts(report), batchChart(report)]),
      group("The run over time", [timelineChart(report)]),
      group("Uncertainty and what it predicts", [riskChart(report)]),
      group("Acceptance and the filter's damage", [positionChart(report), damageChart(report)]),
      group("Acceptance along the answer", [answerChart(report)]),
      group("Devices", deviceCharts(report)),
    ].flat();
  }

  /** Everything about one run, as one section. */
  specfleet.reportSection = (report) => {
    const heading = element("h1", { id: fresh("run") }, `Run ${report.run.name}`);
    const pool = report.pool_table.length > 0 ? [element("h3", { class: "apart" }, "Fleet and pool"), methodTable(report, report.pool_table, "Figures of fleet and pool")] : [];
    return element(
      "section",
      { "aria-labelledby": heading.id, class: "report", "data-run": report.run.name },
      heading,
      validity(report.validity, report.run.noise),
      element("p", { class: "soft small" }, counts(report.counts)),
      element("div", { class: "card" },
        facts(report.run),
        element("details", {}, element("summary", {}, "Scenario, every default filled in"), element("p", { class: "soft small" }, `Digest ${report.run.scenario_hash}`), element("pre", { tabindex: "0", role: "region", "aria-label": "Scenario" }, report.run.scenario)),
      ),
      report.notes.length > 0
        ? element("div", { class: "card" }, element("h2", {}, "Notes"), element("ul", { class: "notes" }, report.notes.map((note) => element("li", {}, note))))
        : null,
      element("h2", {}, "Methods"),
      element("div", { class: "card" }, rules(report), methodTable(report, report.table, "Figures of the methods"), intervals(report), pool),
      report.paired.length > 0 ? [element("h2", {}, "Paired by prompt"), element("div", { class: "card" }, paired(report.paired))] : null,
      charts(report),
    );
  };
}
