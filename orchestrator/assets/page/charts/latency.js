"use strict";
// How long things take: one row of bars per method, with median and 95th percentile.
{
  const { figure, best, short, ridges, count, fixed, unique, percent, list } = specfleet;

  const METRICS = {
    inter_token_latency_seconds: { name: "gap between tokens", what: "Gaps between two tokens of an answer, as a user waits for them" },
    time_to_first_token_seconds: { name: "time to first token", what: "From the request to the first token" },
    queue_seconds: { name: "wait in the pool's queue", what: "From the arrival of an upload to the start of its batch" },
  };

  function latencyChart(report, metric) {
    const { name, what } = METRICS[metric] ?? { name: metric.replaceAll("_", " "), what: metric };
    const groups = report.latency.filter((group) => group.metric === metric && group.bins.some((bin) => bin.count > 0));
    const rows = groups.map((group) => group.method);
    const figures = (method) => report.methods.find((other) => other.name === method)?.metrics[metric];
    const total = (group) => group.bins.reduce((sum, bin) => sum + bin.count, 0);
    // On a logarithmic axis nothing can stand at zero: what takes less than 1 µs (a token that comes together with the
    // one before it) is said beside the bars.
    const floor = 0.001;
    const atOnce = (group) => group.bins.filter((bin) => bin.from === 0).reduce((sum, bin) => sum + bin.count, 0) / total(group);
    const bins = groups.flatMap((group) =>
      group.bins.filter((bin) => bin.count > 0 && bin.from > 0).map((bin) => ({
        row: group.method,
        from: bin.from * 1e3,
        to: bin.to * 1e3,
        share: (100 * bin.count) / total(group),
      })),
    );
    const marks = rows.flatMap((method) => {
      const of = figures(method);
      const mark = (statistic, name) => ({ row: method, at: of[statistic] * 1e3, name });
      return of ? [mark("p50", "median"), mark("p95", "p95")].filter((mark) => mark.at >= floor) : [];
    });
    const slowest = best(rows.map((method) => ({ method, p95: figures(method)?.p95 })), (row) => row.p95);
    const fastest = best(rows.map((method) => ({ method, p95: figures(method)?.p95 })), (row) => -row.p95);
    const say = (seconds) => `${short(seconds * 1e3)} ms`;
    const title = !slowest
      ? name[0].toUpperCase() + name.slice(1)
      : slowest === fastest || rows.length === 1
        ? `95 % of ${slowest.method}'s ${name === "gap between tokens" ? "gaps between tokens" : `values of ${name}`} stay within ${say(slowest.p95)}`
        : `95th percentile of the ${name}: from ${say(fastest.p95)} (${fastest.method}) to ${say(slowest.p95)} (${slowest.method})`;
    const clock = report.run.kind_name === "live" ? "Measured on the running fleet; devices and links take their declared times" : "Simulated in virtual time";
    const joined = groups.filter((group) => atOnce(group) > 0.0005).map((group) => `${group.method} ${percent(atOnce(group))}`);
    const together = joined.length > 0 ? ` Not drawn, because they take no time: tokens that came together with the one before (${list(joined)}).` : "";
    return figure({
      id: `latency-${metric.replace(/_seconds$/, "").replaceAll("_", "-")}`,
      title,
      empty: `No ${name} is recorded: no method of this run has one.`,
      legend: [["median", "var(--text)", "tick"], ["95th percentile", "var(--second)", "tick"]],
      caption: `${what}. Height of a bar: share of the method's samples; time on a logarithmic axis. ${clock}. Percentiles are ${report.quantiles}.${together}`,
      numbers: {
        columns: ["method", ["samples", ""], ["below 1 µs", "%"], ...["mean", "p50", "p90", "p95", "p99", "max"].map((statistic) => [statistic, "ms"])],
        rows: groups.map((group) => {
          const of = figures(group.method);
          const milli = (statistic) => (of ? fixed(of[statistic] * 1e3, 2) : "");
          return [group.method, count(total(group)), fixed(100 * atOnce(group), 1), ...["mean", "p50", "p90", "p95", "p99", "max"].map(milli)];
        }),
      },
      draw: (width) => ridges({ width, rows, bins, marks, log: true, label: `${name} (ms, logarithmic)`, ariaLabel: title }),
    });
  }

  /** One chart per metric that the report has; at least the gap between tokens, as a sentence if it is missing. */
  specfleet.latencyCharts = (report) => {
    const known = Object.keys(METRICS);
    const there = unique(report.latency.map((group) => group.metric));
    const shown = [...known.filter((metric) => there.includes(metric) || metric === known[0]), ...there.filter((metric) => !known.includes(metric))];
    return shown.map((metric) => latencyChart(report, metric));
  };
}
