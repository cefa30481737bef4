"use strict";
// What the filter costs in truth: how many skipped tokens the verifier would not have let pass.
{
  const { figure, best, fixed, percent, count, unique, margin, ticks } = specfleet;

  specfleet.damageChart = (report) => {
    const given = Array.isArray(report.damage) ? report.damage : Object.entries(report.damage ?? {}).map(([method, row]) => ({ method, ...row }));
    const rows = given.filter((row) => row && row.skipped_tokens > 0 && Number.isFinite(row.deviation_rate))
      .map((row) => ({ ...row, sure: Number.isFinite(row.low), x: row.deviation_rate * 100, low: (row.low ?? row.deviation_rate) * 100, high: (row.high ?? row.deviation_rate) * 100 }));
    const methods = unique(rows.map((row) => row.method));
    const least = best(rows, (row) => -row.x);
    const title = least ? `${least.method} does the least damage: the verifier would have changed ${percent(least.x / 100, 1)} of the tokens that it skips` : "The filter's damage";
    return figure({
      id: "damage",
      title,
      empty: "No skipped token was audited: every token was uploaded, or the run has no audit (run.audit).",
      legend: [["deviation rate", "var(--mark)", "dot"], ["95 % interval", "var(--mark)", "line"]],
      caption: "Deviation rate: share of the skipped tokens that the verifier would not have accepted. Computed afterwards by the verifier (audit), charged to no method.",
      numbers: {
        columns: ["method", "skipped tokens", ["deviation", "%"], ["95 % from", "%"], ["to", "%"]],
        rows: rows.map((row) => [row.method, count(row.skipped_tokens), fixed(row.x, 2), row.sure ? fixed(row.low, 2) : "", row.sure ? fixed(row.high, 2) : ""]),
      },
      draw: (width) => {
        const left = margin(methods, width);
        return Plot.plot({
          width,
          height: methods.length * 26 + 52,
          marginLeft: left,
          marginRight: 48,
          marginTop: 4,
          marginBottom: 44,
          ariaLabel: title,
          x: { label: "deviation rate (% of skipped tokens)", labelAnchor: "center", labelArrow: "none", labelOffset: 38, ticks: ticks(width - left), grid: true, nice: true, zero: true },
          y: { domain: methods, label: null, type: "point" },
          marks: [
            Plot.link(rows.filter((row) => row.sure), { x1: "low", x2: "high", y1: "method", y2: "method", stroke: "var(--mark)", strokeWidth: 3, strokeOpacity: 0.6 }),
            Plot.dot(rows, { x: "x", y: "method", r: 5, fill: "var(--mark)" }),
            Plot.text(rows, { x: "high", y: "method", text: (row) => percent(row.x / 100, 1), textAnchor: "start", dx: 9, fill: "currentColor" }),
            Plot.axisY({ label: null, tickSize: 0 }),
          ],
        });
      },
    });
  };
}
