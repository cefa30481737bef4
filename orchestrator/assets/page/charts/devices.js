"use strict";
// How far the devices of a fleet are apart.
{
  const { figure, best, fixed, short, unique, margin, ticks, count } = specfleet;

  const METRICS = {
    inter_token_mean_seconds: ["mean gap between tokens", "ms", 1e3],
    energy_per_token_joules: ["energy", "mJ per token", 1e3],
    upload_rate: ["upload rate", "% of tokens", 1e2],
    tokens_per_second: ["speed", "tokens per s", 1],
  };

  function deviceChart(report, metric) {
    const [name, unit, factor] = METRICS[metric] ?? [metric.replaceAll("_", " "), metric.endsWith("_seconds") ? "s" : "unit of the metric", 1];
    const all = report.devices.filter((row) => row.metric === metric && Number.isFinite(row.p50));
    const profiles = unique(all.map((row) => row.profile));
    const label = (row) => (profiles.length > 1 ? `${row.method}, ${row.profile}` : row.method);
    const rows = all.map((row) => ({ ...row, name: label(row), ...Object.fromEntries(["min", "p10", "p50", "p90", "max"].map((key) => [key, row[key] * factor])) }));
    const spread = best(rows.filter((row) => row.p10 > 0), (row) => row.p90 / row.p10);
    const title = spread
      ? `Devices differ most in ${name} under ${spread.name}: their 90th percentile is ${fixed(spread.p90 / spread.p10, 2)} times the 10th`
      : `The devices' ${name}`;
    const names = unique(rows.map((row) => row.name));
    return figure({
      id: `devices-${metric.replaceAll("_", "-")}`,
      title,
      empty: "No device has a figure of its own here: the run keeps no rows of single devices.",
      legend: [["median device", "var(--text)", "tick"], ["10 % to 90 % of the devices", "var(--mark)", "thick"], ["all of them", "var(--soft)", "line"]],
      caption: `Spread over the ${count(Math.max(0, ...rows.map((row) => row.devices)))} devices of the fleet${profiles.length === 1 ? ` (${profiles[0]})` : ""}, each device by its own mean. Sources as in the method table: devices and links follow declared profiles.`,
      numbers: {
        columns: ["method", "profile", ["devices", ""], ...["min", "p10", "p50", "p90", "max"].map((key) => [key, unit])],
        rows: rows.map((row) => [row.method, row.profile, count(row.devices), ...["min", "p10", "p50", "p90", "max"].map((key) => short(row[key]))]),
      },
      draw: (width) => {
        const left = margin(names, width);
        return Plot.plot({
          width,
          height: names.length * 24 + 52,
          marginLeft: left,
          marginRight: 16,
          marginTop: 4,
          marginBottom: 44,
          ariaLabel: title,
          x: { label: `${name} of a device (${unit})`, labelAnchor: "center", labelArrow: "none", labelOffset: 38, ticks: ticks(width - left), grid: true, nice: true, zero: true },
          y: { domain: names, label: null, type: "band", padding: 0.3 },
          marks: [
            Plot.link(rows, { x1: "min", x2: "max", y1: "name", y2: "name", stroke: "var(--soft)", strokeWidth: 1.5 }),
            Plot.barX(rows, { x1: "p10", x2: "p90", y: "name", fill: "var(--mark)", fillOpacity: 0.75, insetTop: 2, insetBottom: 2 }),
            Plot.tickX(rows, { x: "p50", y: "name", stroke: "var(--text)", strokeWidth: 2.5 }),
            Plot.axisY({ label: null, tickSize: 0 }),
          ],
        });
      },
    });
  }

  specfleet.deviceCharts = (report) => {
    const metrics = unique(report.devices.map((row) => row.metric));
    return (metrics.length > 0 ? metrics : ["tokens_per_second"]).map((metric) => deviceChart(report, metric));
  };
}
