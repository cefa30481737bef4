"use strict";
// How often a draft is accepted, by its place in the answer: does the drafter get lost on the way?
{
  const { element, figure, best, fixed, percent, count, unique } = specfleet;

  specfleet.answerChart = (report) => {
    const all = report.answer_positions.filter((row) => row.judged > 0).map((row) => ({ ...row, share: (100 * row.accepted) / row.judged }));
    const methods = unique(all.map((row) => row.method));
    const of = (method) => all.filter((row) => row.method === method).sort((a, b) => a.from - b.from);
    const lowest = best(all.filter((row) => row.judged >= 20), (row) => -row.share) ?? best(all, (row) => -row.share);
    const title = lowest
      ? `Along the answer acceptance is lowest under ${lowest.method}, tokens ${lowest.from + 1} to ${lowest.to}: ${percent(lowest.share / 100)}`
      : "Acceptance along the answer";
    const end = Math.max(1, ...all.map((row) => row.to));
    const floor = Math.min(90, Math.floor(Math.min(100, ...all.map((row) => row.share)) / 10) * 10);
    return figure({
      id: "answers",
      title,
      many: true,
      empty: "Nothing was judged: no method of this run uploads drafts.",
      caption: "Accepted share of the judged drafts, by the draft's position in its answer; stretches with fewer than 20 drafts are pale. The vertical axis does not begin at zero. Verdicts are computed by the verifier.",
      numbers: {
        columns: ["method", "from token", "to token", "judged", "accepted", ["accepted", "%"]],
        rows: methods.flatMap((method) => of(method).map((row) => [row.method, count(row.from + 1), count(row.to), count(row.judged), count(row.accepted), fixed(row.share, 1)])),
      },
      draw: (width) => {
        const columns = Math.max(1, Math.floor((width + 16) / 256));
        const each = Math.floor((width - 16 * (columns - 1)) / columns);
        return methods.map((method) => {
          const rows = of(method);
          const judged = rows.reduce((sum, row) => sum + row.judged, 0);
          const accepted = rows.reduce((sum, row) => sum + row.accepted, 0);
          const chart = Plot.plot({
            width: each,
            height: 142,
            marginLeft: 36,
            marginRight: 12,
            marginTop: 22,
            marginBottom: 40,
            ariaLabel: `${method}: acceptance along the answer`,
            x: { domain: [0, end], label: "position in the answer (tokens)", labelAnchor: "center", labelArrow: "none", labelOffset: 34, ticks: 4 },
            y: { domain: [floor, 100], label: "accepted (%)", labelAnchor: "top", labelArrow: "none", ticks: 3, grid: true },
            marks: [
              ...[[0.35, (row) => row.judged < 20], [1, (row) => row.judged >= 20]].map(([strokeOpacity, some]) =>
                Plot.link(rows.filter(some), { x1: "from", x2: "to", y1: "share", y2: "share", stroke: "var(--mark)", strokeWidth: 4, strokeOpacity })),
            ],
          });
          return element("div", {}, element("h4", {}, `${method}: ${percent(accepted / judged, 1)} of ${count(judged)}`), chart);
        });
      },
    });
  };
}
