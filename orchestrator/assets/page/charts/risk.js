"use strict";
// Uncertainty against rejection: what was judged, the line that is fitted to it, and where its thresholds cut.
{
  const { element, figure, fixed, percent, count } = specfleet;

  /** How far the judged tokens are from the line, weighted by how many they are, in points. */
  function distance({ bins, line }) {
    const judged = bins.reduce((sum, bin) => sum + bin.judged, 0);
    const clip = (value) => Math.min(1, Math.max(0, value));
    const off = bins.reduce((sum, bin) => sum + Math.abs(bin.rejected / bin.judged - clip(line.a * bin.uncertainty + line.b)) * bin.judged, 0);
    return off / judged;
  }

  function small(group, width, most) {
    const height = 216;
    const rows = group.bins.map((bin) => ({ x: bin.uncertainty, y: (100 * bin.rejected) / bin.judged, judged: bin.judged }));
    const right = Math.max(0.05, ...rows.map((row) => row.x), ...Object.values(group.thresholds ?? {}).filter((value) => value <= 1));
    const steps = Array.from({ length: 51 }, (_, step) => (step / 50) * right);
    const line = group.line ? steps.map((x) => ({ x, y: 100 * Math.min(1, Math.max(0, group.line.a * x + group.line.b)) })) : [];
    const cuts = [["risk_averse", "averse"], ["risk_prone", "prone"], ["in_use", "in use"]]
      .map(([key, text]) => ({ x: group.thresholds?.[key], text }))
      .filter((cut) => Number.isFinite(cut.x) && cut.x >= 0 && cut.x <= right);
    return Plot.plot({
      width,
      height,
      marginLeft: 50,
      marginRight: 12,
      marginTop: 44,
      marginBottom: 40,
      ariaLabel: `${group.method}: rejection against uncertainty`,
      x: { domain: [0, right], label: "uncertainty u (share of 1)", labelAnchor: "center", labelArrow: "none", labelOffset: 34, ticks: 4, grid: true },
      y: { domain: [0, Math.max(10, ...rows.map((row) => row.y), ...line.map((row) => row.y))], label: "rejected (%)", labelAnchor: "center", labelArrow: "none", labelOffset: 44, ticks: 4, grid: true, nice: true },
      r: { domain: [0, most], range: [0, 9] },
      marks: [
        Plot.ruleX(cuts, { x: "x", stroke: "var(--soft)", strokeDasharray: "3 3" }),
        ...cuts.map((cut, index) => Plot.text([cut], { x: "x", text: "text", frameAnchor: "top", dy: -14 - 13 * index, textAnchor: cut.x > right * 0.8 ? "end" : cut.x < right * 0.2 ? "start" : "middle", fill: "currentColor" })),
        Plot.line(line, { x: "x", y: "y", stroke: "var(--second)", strokeWidth: 2 }),
        Plot.dot(rows, { x: "x", y: "y", r: "judged", fill: "var(--mark)", fillOpacity: 0.65, stroke: "var(--mark)" }),
      ],
    });
  }

  specfleet.riskChart = (report) => {
    const groups = report.risk
      .map((group) => ({ ...group, bins: group.bins.filter((bin) => bin.judged > 0) }))
      .filter((group) => group.bins.length > 0);
    const lined = groups.filter((group) => group.line);
    const points = lined.map((group) => 100 * distance(group));
    const title = lined.length === 0
      ? "Rejection grows with uncertainty as the judged tokens show it"
      : `The fitted risk line is ${fixed(Math.min(...points), 1)}${points.length > 1 ? ` to ${fixed(Math.max(...points), 1)}` : ""} points off the judged drafts on average`;
    const most = Math.max(1, ...groups.flatMap((group) => group.bins.map((bin) => bin.judged)));
    return figure({
      id: "risk",
      title,
      many: true,
      empty: "No uncertainty was judged: no method of this run measures it, or nothing was uploaded.",
      legend: [["drafts whose rejection is known, area by number", "var(--mark)", "dot"], ["fitted line a·u + b", "var(--second)", "line"], ["thresholds: risk-averse and risk-prone by the line, and the one in use", "var(--soft)", "dashes"]],
      caption: "u: share of perturbed draws that change the token. Verdicts are computed by the verifier; skipped tokens enter by the audit. The line is fitted by least squares to the drafts of this run whose rejection is known, and its two thresholds follow from it; the one in use is what the run was set to.",
      numbers: {
        columns: ["method", ["uncertainty", "0–1"], "known", "rejected", ["rejected", "%"], ["line a·u + b", "%"]],
        rows: groups.flatMap((group) => group.bins.map((bin) => [
          group.method,
          fixed(bin.uncertainty, 3),
          count(bin.judged),
          fixed(bin.rejected, 1),
          fixed((100 * bin.rejected) / bin.judged, 1),
          group.line ? fixed(100 * Math.min(1, Math.max(0, group.line.a * bin.uncertainty + group.line.b)), 1) : "",
        ])),
      },
      draw: (width) => {
        const columns = Math.max(1, Math.floor((width + 16) / 256));
        const each = Math.floor((width - 16 * (columns - 1)) / columns);
        return groups.map((group) => {
          const judged = group.bins.reduce((sum, bin) => sum + bin.judged, 0);
          const rejected = group.bins.reduce((sum, bin) => sum + bin.rejected, 0);
          return element("div", {}, element("h4", {}, `${group.method}: ${percent(rejected / judged, 1)} of ${count(judged)} rejected`), small(group, each, most));
        });
      },
    });
  };
}
