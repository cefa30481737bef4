"use strict";
// The run along its clock: tokens, uploads, queue and batches, with the method that was at work behind them.
{
  const { element, figure, best, fixed, short, unique, wide, ticks } = specfleet;

  const PANELS = [
    ["tokens_per_second", "tokens (per s)", 1],
    ["uploads_per_second", "uploads (per s)", 1],
    ["queue_seconds", "queue (ms)", 1e3],
    ["batch_sequences", "batch (sequences)", 1],
  ];

  /** The stretches of the timeline in which one method was at work. */
  function stretches(points) {
    const found = [];
    for (const { method, seconds, width_seconds: width } of points) {
      const last = found.at(-1);
      if (last && last.method === method) last.to = seconds + width / 2;
      else found.push({ method, from: seconds - width / 2, to: seconds + width / 2 });
    }
    return found;
  }

  specfleet.timelineChart = (report) => {
    const points = report.timeline;
    const busiest = best(points, (point) => point.tokens_per_second);
    const title = busiest
      ? `The fleet writes ${short(busiest.tokens_per_second)} tokens per second at its peak, under ${busiest.method}`
      : "Queue and batches over time";
    const bands = stretches(points);
    const clock = report.run.kind_name === "live" ? "Seconds since the start of the run, measured" : "Seconds of virtual time, simulated";
    const panels = PANELS.filter(([key]) => points.some((point) => Number.isFinite(point[key])));
    const end = Math.max(0, ...points.map((point) => point.seconds), ...bands.map((band) => band.to));
    return figure({
      id: "timeline",
      title,
      empty: "The run has no timeline: nothing was committed.",
      caption: `${clock}. Shaded stretches are methods, in run order. Means over each interval of the timeline; between methods the pool is empty.`,
      numbers: {
        columns: [["time", "s"], "method", ["tokens", "per s"], ["uploads", "per s"], ["queue", "ms"], ["batch", "sequences"]],
        rows: points.map((point) => [
          fixed(point.seconds, 1),
          point.method ?? "",
          ...PANELS.map(([key, , factor]) => (Number.isFinite(point[key]) ? fixed(point[key] * factor, 1) : "")),
        ]),
      },
      draw: (width) => {
        const left = 46;
        const right = 14;
        const names = unique(bands.map((band) => band.method));
        const longest = Math.max(0, ...names.map(wide));
        const pixel = (width - left - right) / (end || 1);
        // Names stand upright where they fit, else on their side, else not at all (the table has them).
        const level = bands.every((band) => (band.to - band.from) * pixel > wide(band.method) + 4);
        const side = !level && bands.every((band) => (band.to - band.from) * pixel > 11);
        return panels.map(([key, label, factor], index) => {
          const first = index === 0;
          const last = index === panels.length - 1;
          const top = 24 + (first ? (level ? 18 : side ? longest + 8 : 0) : 0);
          const rows = points.filter((point) => Number.isFinite(point[key])).map((point) => ({
            x1: point.seconds - point.width_seconds / 2,
            x2: point.seconds + point.width_seconds / 2,
            y: point[key] * factor,
          }));
          const chart = Plot.plot({
            width,
            height: 76 + top + (last ? 42 : 6),
            marginLeft: left,
            marginRight: right,
            marginTop: top,
            marginBottom: last ? 42 : 6,
            ariaLabel: `${label} over time`,
            x: { domain: [0, end], label: "time (s)", labelAnchor: "center", labelArrow: "none", labelOffset: 36, ticks: ticks(width - 60), axis: last ? "bottom" : null },
            y: { label, labelAnchor: "top", labelArrow: "none", ticks: 3, grid: true, nice: true, zero: true, tickFormat: specfleet.plain },
            marks: [
              Plot.rectX(bands.filter((_, band) => band % 2 === 0), { x1: "from", x2: "to", fill: "var(--band)" }),
              first && level ? Plot.text(bands, { x: (band) => (band.from + band.to) / 2, text: "method", frameAnchor: "top", lineAnchor: "bottom", dy: -5, fill: "currentColor" }) : null,
              first && side ? Plot.text(bands, { x: (band) => (band.from + band.to) / 2, text: "method", frameAnchor: "top", rotate: -90, textAnchor: "start", dy: -6, fill: "currentColor" }) : null,
              Plot.rectY(rows, { x1: "x1", x2: "x2", y: "y", fill: "var(--mark)", fillOpacity: 0.3, inset: 0 }),
              Plot.ruleY(rows, { x1: "x1", x2: "x2", y: "y", stroke: "var(--mark)", strokeWidth: 2 }),
            ],
          });
          return element("div", {}, chart);
        });
      },
    });
  };
}
