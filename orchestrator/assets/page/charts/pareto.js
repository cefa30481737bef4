"use strict";
// Accuracy against energy: who is beaten on both sides, and who is on the front.
{
  const { figure, fixed, list, plain, ticks, labelPoints } = specfleet;

  const NAMES = { exact_match: "exact match", rouge_l: "ROUGE-L", bertscore_f1: "BERTScore F1", token_agreement: "agreement with llm-only" };

  specfleet.paretoChart = (report) => {
    const points = report.pareto.filter((point) => Number.isFinite(point.accuracy) && Number.isFinite(point.joules_per_token));
    const front = points.filter((point) => point.front).sort((a, b) => a.joules_per_token - b.joules_per_token);
    const metric = points[0]?.accuracy_metric ?? "accuracy";
    const name = NAMES[metric] ?? metric.replaceAll("_", " ");
    const title = front.length === 1
      ? `${front[0].method} is best in both ${name} and energy`
      : `On the front of ${name} and energy: ${list(front.map((point) => point.method))}`;
    const rows = points.map((point) => ({ ...point, x: point.joules_per_token * 1e3, y: point.accuracy * 100 }));
    // Where all are equal an axis would be a point, with ticks of many decimals.
    const wide = (values, least) => {
      const [low, high] = [Math.min(...values), Math.max(...values)];
      const missing = Math.max(0, least - (high - low)) / 2;
      return [Math.max(0, low - missing), high + missing];
    };
    const of = (front) => rows.filter((row) => Boolean(row.front) === front);
    return figure({
      id: "pareto",
      title: points.length > 0 ? title : "Accuracy against energy",
      empty: "No method has both an accuracy and an energy: the workload has no references, or nothing was generated.",
      legend: [["on the front: no other method is better in both", "var(--mark)", "dot"], ["beaten in both by another", "var(--soft)", "ring"]],
      caption: `Mean ${name} of the answers (computed) against charged joules per committed token (sources as in the chart of energy). Up and left is better.`,
      numbers: {
        columns: ["method", [name, "%"], ["energy", "mJ per token"], "on the front"],
        rows: rows.map((row) => [row.method, fixed(row.y, 1), fixed(row.x, 1), row.front ? "yes" : "no"]),
      },
      draw: (width) => {
        const height = Math.round(Math.min(420, Math.max(300, width * 0.62)));
        const frame = { left: 46, right: width - 14, top: 12, bottom: height - 46 };
        const chart = Plot.plot({
          width,
          height,
          marginLeft: frame.left,
          marginRight: 14,
          marginTop: frame.top,
          marginBottom: 46,
          inset: 14,
          ariaLabel: title,
          x: { label: "energy (mJ per token)", labelAnchor: "center", labelArrow: "none", labelOffset: 40, ticks: ticks(width - 60), grid: true, nice: true, domain: wide(rows.map((row) => row.x), 1), tickFormat: plain },
          y: { label: `${name} (%)`, labelArrow: "none", labelAnchor: "center", labelOffset: 40, ticks: 6, grid: true, nice: true, domain: wide(rows.map((row) => row.y), 5), tickFormat: plain },
          marks: [
            Plot.line(of(true).sort((a, b) => a.x - b.x), { x: "x", y: "y", stroke: "var(--mark)", strokeOpacity: 0.5, strokeWidth: 1.5, strokeDasharray: "4 3" }),
            Plot.dot(of(false), { x: "x", y: "y", r: 4.5, stroke: "var(--soft)", strokeWidth: 2, fill: "var(--surface)" }),
            Plot.dot(of(true), { x: "x", y: "y", r: 5.5, fill: "var(--mark)" }),
          ],
        });
        const [x, y] = [chart.scale("x"), chart.scale("y")];
        labelPoints(chart, rows.map((row) => ({ x: x.apply(row.x), y: y.apply(row.y), text: row.method })), frame);
        return chart;
      },
    });
  };
}
