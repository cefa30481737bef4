"use strict";
// How often a draft is accepted, by its place in the upload.
{
  const { figure, best, fixed, percent, unique, count, margin, ticks } = specfleet;

  specfleet.positionChart = (report) => {
    const all = report.positions.filter((row) => row.judged > 0).map((row) => ({ ...row, position: row.position + 1, share: (100 * row.accepted) / row.judged }));
    const methods = unique(all.map((row) => row.method));
    const of = (method) => all.filter((row) => row.method === method).sort((a, b) => a.position - b.position);
    const blocks = methods.filter((method) => of(method).length > 1);
    const fall = best(blocks.map((method) => ({ method, first: of(method)[0], last: of(method).at(-1) })), (row) => row.first.share - row.last.share);
    const lowest = best(all, (row) => -row.share);
    const title = fall
      ? `Under ${fall.method} acceptance goes from ${percent(fall.first.share / 100)} at position ${fall.first.position} to ${percent(fall.last.share / 100)} at position ${fall.last.position}`
      : lowest
        ? `Acceptance is lowest under ${lowest.method}: ${percent(lowest.share / 100, 1)} of the judged drafts`
        : "Acceptance by position";
    return figure({
      id: "positions",
      title,
      empty: "Nothing was judged: no method of this run uploads drafts.",
      caption: "Accepted share of the judged drafts; the number in a dot is the draft's position in its upload. Methods that upload one draft at a time have position 1 only. The axis does not begin at zero. Verdicts are computed by the verifier.",
      numbers: {
        columns: ["method", "position", "judged", "accepted", ["accepted", "%"]],
        rows: methods.flatMap((method) => of(method).map((row) => [row.method, count(row.position), count(row.judged), count(row.accepted), fixed(row.share, 1)])),
      },
      draw: (width) => {
        const left = margin(methods, width);
        return Plot.plot({
          width,
          height: methods.length * 28 + 52,
          marginLeft: left,
          marginRight: 20,
          marginTop: 4,
          marginBottom: 44,
          ariaLabel: title,
          x: { label: "accepted (% of judged drafts)", labelAnchor: "center", labelArrow: "none", labelOffset: 38, ticks: ticks(width - left), grid: true, nice: true, insetLeft: 10, insetRight: 10 },
          y: { domain: methods, label: null, type: "point" },
          marks: [
            Plot.line(all, { x: "share", y: "method", z: "method", stroke: "var(--mark)", strokeOpacity: 0.5 }),
            Plot.dot(all, { x: "share", y: "method", r: 8.5, fill: "var(--mark)", stroke: "var(--surface)" }),
            Plot.text(all, { x: "share", y: "method", text: "position", fill: "var(--surface)", fontWeight: 600, fontSize: 11 }),
            Plot.axisY({ label: null, tickSize: 0 }),
          ],
        });
      },
    });
  };
}
