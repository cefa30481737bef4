"use strict";
// How many sequences a verification batch holds.
{
  const { figure, best, fixed, unique, count, percent, ridges } = specfleet;

  specfleet.batchChart = (report) => {
    const all = report.batch_sizes.filter((row) => row.batches > 0);
    const methods = unique(all.map((row) => row.method));
    const of = (method) => all.filter((row) => row.method === method);
    const batches = (method) => of(method).reduce((sum, row) => sum + row.batches, 0);
    const mean = (method) => of(method).reduce((sum, row) => sum + row.batches * row.sequences, 0) / batches(method);
    const largest = best(methods.map((method) => ({ method, mean: mean(method) })), (row) => row.mean);
    const title = largest ? `${largest.method} fills its batches best: ${fixed(largest.mean, 2)} sequences on average` : "Sequences per batch";
    const bins = all.map((row) => ({ row: row.method, from: row.sequences - 0.5, to: row.sequences + 0.5, share: (100 * row.batches) / batches(row.method) }));
    const origin = report.run.kind_name === "live" ? "Counted on the running pool" : "Counted in virtual time";
    return figure({
      id: "batches",
      title,
      empty: "No batch is recorded: no method of this run uploads.",
      legend: [["mean", "var(--text)", "tick"]],
      caption: `Height of a bar: share of the method's batches. ${origin}.`,
      numbers: {
        columns: ["method", ["batches", ""], ["mean", "sequences"], ["largest", "sequences"], "alone in their batch"],
        rows: methods.map((method) => [
          method,
          count(batches(method)),
          fixed(mean(method), 2),
          count(Math.max(...of(method).map((row) => row.sequences))),
          percent((of(method).find((row) => row.sequences === 1)?.batches ?? 0) / batches(method), 1),
        ]),
      },
      draw: (width) => ridges({
        width,
        rows: methods,
        bins,
        marks: methods.map((method) => ({ row: method, at: mean(method), name: "median" })),
        whole: true,
        label: "batch size (sequences)",
        ariaLabel: title,
      }),
    });
  };
}
