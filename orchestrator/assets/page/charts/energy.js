"use strict";
// Where the joules go: one bar per method, stacked by part.
{
  const { figure, fixed, percent, list, unique, margin, ticks, best } = specfleet;

  const PARTS = [
    ["device", "device", "var(--device)"],
    ["radio", "radio", "var(--radio)"],
    ["cloud", "verifiers", "var(--cloud)"],
    ["idle", "verifiers idle (charged to no method)", "var(--idle)"],
  ];

  /** What is seen: the range, and what ui-hlm saves against uploading everything. */
  function title(totals, name) {
    const [least, most] = [best(totals, (total) => -total.joules), best(totals, (total) => total.joules)];
    if (!least) return "Energy per token by part";
    if (least === most) return `${least.method} takes ${name(least.joules)} mJ per token`;
    const [ours, everything] = ["ui-hlm", "hlm"].map((method) => totals.find((total) => total.method === method));
    const range = `From ${name(least.joules)} (${least.method}) to ${name(most.joules)} mJ per token (${most.method})`;
    if (!ours || !everything || everything.joules === 0) return range;
    const share = 1 - ours.joules / everything.joules;
    return `${range}; ui-hlm takes ${percent(Math.abs(share))} ${share < 0 ? "more" : "less"} than hlm`;
  }

  specfleet.energyChart = (report) => {
    const rows = report.energy.filter((row) => Number.isFinite(row.joules_per_token));
    const methods = unique(rows.map((row) => row.method));
    const parts = PARTS.filter(([part]) => rows.some((row) => row.part === part && row.joules_per_token > 0));
    const of = (method, part) => rows.find((row) => row.method === method && row.part === part);
    const charged = (method) => rows.filter((row) => row.method === method && row.part !== "idle").reduce((sum, row) => sum + row.joules_per_token, 0);
    const totals = methods.map((method) => ({ method, joules: charged(method) }));
    const milli = (joules) => fixed(joules * 1e3, 1);
    const sources = unique(rows.filter((row) => row.joules_per_token > 0).flatMap((row) => row.provenance));
    const bars = parts.flatMap(([part]) => methods.map((method) => ({ method, part, value: 1e3 * (of(method, part)?.joules_per_token ?? 0) })));
    const ends = methods.map((method) => ({ method, value: bars.filter((bar) => bar.method === method).reduce((sum, bar) => sum + bar.value, 0), text: milli(charged(method)) }));
    return figure({
      id: "energy",
      title: title(totals, milli),
      empty: "No energy is recorded: the run has no closed generation.",
      legend: parts.map(([, label, colour]) => [label, colour]),
      caption: `Joules per committed token, by part; the number at a bar is what its method is charged. Joules are ${sources.length > 0 ? list(sources) : "of unknown source"}.`,
      numbers: {
        columns: ["method", ...PARTS.map(([, label]) => [label, "mJ per token"]), ["charged", "mJ per token"], "source"],
        rows: methods.map((method) => [
          method,
          ...PARTS.map(([part]) => (of(method, part) ? milli(of(method, part).joules_per_token) : "")),
          milli(charged(method)),
          unique(rows.filter((row) => row.method === method).map((row) => `${row.part} ${row.provenance.join(" and ")}`)).join(", "),
        ]),
      },
      draw: (width) => {
        const left = margin(methods, width);
        return Plot.plot({
          width,
          height: methods.length * 26 + 52,
          marginLeft: left,
          marginRight: 46,
          marginTop: 4,
          marginBottom: 44,
          ariaLabel: title(totals, milli),
          x: { label: "energy (mJ per token)", labelAnchor: "center", labelArrow: "none", labelOffset: 38, ticks: ticks(width - left - 46), grid: true, nice: true },
          y: { domain: methods, label: null, padding: 0.22 },
          color: { domain: parts.map(([part]) => part), range: parts.map(([, , colour]) => colour) },
          marks: [
            Plot.barX(bars, Plot.stackX({ x: "value", y: "method", fill: "part", order: parts.map(([part]) => part), insetRight: 0.5 })),
            Plot.text(ends, { x: "value", y: "method", text: "text", textAnchor: "start", dx: 5, fill: "currentColor" }),
            Plot.axisY({ label: null, tickSize: 0 }),
          ],
        });
      },
    });
  };
}
