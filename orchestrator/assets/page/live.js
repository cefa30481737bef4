"use strict";
// The figures of a fleet that is running: tiles, what the verifiers do, and the last two minutes as small charts.
{
  const { element, count, short, fixed, duration, percent, fitted, ticks, table, scrolling, legendOf } = specfleet;

  /** Seconds that the small charts show. */
  const WINDOW = 120;

  const CHARTS = [
    { key: "tokens_per_second", title: "Tokens", unit: "per s", label: "tokens (per s)" },
    { key: "uploads_per_second", title: "Uploads", unit: "per s", label: "uploads (per s)" },
    { key: "queue_jobs", title: "Queue of the pool", unit: "uploads", whole: true, label: "waiting (uploads)" },
    { key: "batch_sequences_mean", title: "Batch size", unit: "sequences", label: "batch (sequences)" },
  ];

  const PARTS = [["device", "var(--device)"], ["radio", "var(--radio)"], ["cloud", "var(--cloud)"]];

  /** From the first point that is known, or the start of the window, to the last; never less than ten seconds. */
  function span(points) {
    const [first, last] = [points.at(0)?.x ?? 0, points.at(-1)?.x ?? 0];
    const from = Math.max(first, last - WINDOW);
    return [from, Math.max(last, from + 10)];
  }

  function chart({ title, label, unit, whole }, read) {
    const box = element("div", { class: "plot" });
    const now = element("span", {}, "–");
    const made = element("figure", { class: "chart live", "aria-label": title }, element("h3", {}, `${title}: `, now), box);
    let points = [];
    const redraw = fitted(box, (width) =>
      Plot.plot({
        width,
        height: 120,
        marginLeft: 40,
        marginRight: 10,
        marginTop: 24,
        marginBottom: 36,
        ariaLabel: `${label}, the last ${WINDOW} seconds`,
        x: { domain: span(points), label: "time of the run (s)", labelAnchor: "center", labelArrow: "none", labelOffset: 32, ticks: Math.min(4, ticks(width)) },
        y: { domain: [0, Math.max(1, ...points.map((point) => point.y))], label, labelAnchor: "top", labelArrow: "none", ticks: 3, grid: true, nice: true, tickFormat: specfleet.plain },
        marks: [
          Plot.areaY(points, { x: "x", y: "y", fill: "var(--mark)", fillOpacity: 0.2, clip: true }),
          Plot.lineY(points, { x: "x", y: "y", stroke: "var(--mark)", strokeWidth: 2, clip: true }),
        ],
      }),
    );
    return {
      made,
      update(history) {
        points = history.map((live) => ({ x: live.seconds, y: read(live) })).filter((point) => Number.isFinite(point.y));
        now.textContent = `${(whole ? count : short)(points.at(-1)?.y)} ${unit}`;
        redraw();
      },
    };
  }

  function energyChart() {
    const box = element("div", { class: "plot" });
    const title = element("h3", {}, "Energy so far");
    const made = element("figure", { class: "chart live", "aria-label": "Energy so far" }, title, legendOf([["device", PARTS[0][1]], ["radio", PARTS[1][1]], ["verifiers", PARTS[2][1]]]), box,
      element("figcaption", {}, "All methods together: declared for device and radio, modelled for verifiers."));
    let joules = {};
    const redraw = fitted(box, (width) =>
      Plot.plot({
        width,
        height: 88,
        marginLeft: 10,
        marginRight: 18,
        marginTop: 4,
        marginBottom: 44,
        ariaLabel: "energy by part so far",
        x: { label: "energy (J)", labelAnchor: "center", labelArrow: "none", labelOffset: 36, ticks: Math.min(5, ticks(width)), grid: true },
        color: { domain: PARTS.map(([part]) => part), range: PARTS.map(([, colour]) => colour) },
        marks: [Plot.barX(PARTS.map(([part]) => ({ part, value: joules[part] ?? 0 })), Plot.stackX({ x: "value", fill: "part", order: PARTS.map(([part]) => part) }))],
      }),
    );
    return {
      made,
      update(live) {
        joules = live.joules ?? {};
        title.textContent = `Energy so far: ${short(PARTS.reduce((sum, [part]) => sum + (joules[part] ?? 0), 0))} J`;
        redraw();
      },
    };
  }

  /** A panel for one running run; `update` takes its figures as they come. */
  specfleet.livePanel = (run) => {
    const names = ["Method", "Answers", "Tokens", "Tokens per second", "Uploads per second", "Rejected", "Queue", "Batch"];
    const values = Object.fromEntries(names.map((name) => [name, element("dd", {}, "–")]));
    const tiles = element("dl", { class: "tiles" }, names.map((name) => element("div", { class: "tile" }, element("dt", {}, name), values[name])));
    const bar = element("progress", { max: "1", value: "0", "aria-label": `Progress of ${run}` });
    const wait = element("p", { class: "soft" }, "Waiting for the first figures of this run.");
    const charts = CHARTS.map((of) => chart(of, (live) => live[of.key]));
    const energy = energyChart();
    const verifiers = element("div", {});
    const body = element("div", { hidden: true }, bar, tiles, element("div", { class: "grid" }, charts.map(({ made }) => made), energy.made,
      element("div", { class: "card" }, element("h3", {}, "Verifiers"), verifiers)));
    const history = [];
    const set = (name, text, unit) => {
      const small = unit ? [element("small", {}, ` ${unit}`)] : [];
      values[name].replaceChildren(text, ...small);
    };
    return {
      made: element("section", { class: "live-panel", "data-run": run, "aria-label": `Live figures of ${run}` }, wait, body),
      update(live) {
        if (!live) return;
        wait.hidden = true;
        body.hidden = false;
        if (history.length > 0 && live.seconds < history.at(-1).seconds) history.length = 0;
        if (history.at(-1)?.seconds !== live.seconds) history.push(live);
        while (history.length > 0 && history[0].seconds < live.seconds - WINDOW) history.shift();
        bar.value = live.generations_total > 0 ? live.generations / live.generations_total : 0;
        set("Method", live.method ?? "–", live.methods > 0 ? `${Math.min(live.method_index + 1, live.methods)} of ${live.methods}` : undefined);
        set("Answers", count(live.generations), `of ${count(live.generations_total)}, ${duration(live.seconds)}`);
        set("Tokens", count(live.tokens));
        set("Tokens per second", short(live.tokens_per_second), "per s");
        set("Uploads per second", short(live.uploads_per_second), "per s");
        set("Rejected", live.judged > 0 ? percent(live.rejected / live.judged, 1) : "–", `of ${count(live.judged)} judged`);
        set("Queue", count(live.queue_jobs), `uploads, ${count(live.queue_tokens)} tokens`);
        set("Batch", fixed(live.batch_sequences_mean, 2), `sequences, ${count(live.batches)} batches`);
        for (const { update } of charts) update(history);
        energy.update(live);
        verifiers.replaceChildren(scrolling("What each verifier does now", table({
          caption: "What each verifier does now",
          words: false,
          columns: ["verifier", "state", "batches", ["busy", "%"], "restarts"],
          rows: (live.verifiers ?? []).map((verifier) => [String(verifier.verifier), verifier.state, count(verifier.batches), fixed(100 * verifier.busy_share, 0), count(verifier.restarts)]),
        })));
      },
    };
  };
}
