"use strict";
// What the charts have in common: margins that fit their labels, ticks that fit their width, rows of small plots, and
// labels beside points that do not cover each other.
{
  const { svg } = specfleet;

  /** About how many pixels a text of the charts is wide. */
  const wide = (text) => 6.9 * String(text).length;

  /** Margin for labels of a category axis: no more than two fifths of the width. */
  function margin(labels, width) {
    return Math.min(Math.ceil(Math.max(24, ...labels.map(wide))) + 12, Math.floor(width * 0.4));
  }

  /** Ticks of an axis, about one per 70 pixels. */
  const ticks = (pixels) => Math.max(2, Math.floor(pixels / 70));

  /** Ticks of a logarithmic axis that have room: 1, 2, 5 of each power of ten, or 1 and 3, or the powers alone. */
  function logTicks(from, to, pixels) {
    const most = Math.max(2, Math.floor(pixels / 38));
    const inside = (steps) => {
      const all = [];
      for (let power = Math.floor(Math.log10(from)); power <= Math.ceil(Math.log10(to)); power += 1) {
        all.push(...steps.map((step) => step * 10 ** power));
      }
      return all.filter((tick) => tick >= from * 0.999 && tick <= to * 1.001);
    };
    const powers = inside([1]);
    const every = Math.ceil(powers.length / most);
    return [[1, 2, 5], [1, 3]].map(inside).find((found) => found.length <= most) ?? powers.filter((_, index) => index % every === 0);
  }

  /** A tick of a logarithmic axis: 0.5, 20, 1k, 2M. */
  function plain(value) {
    const size = Math.abs(value);
    const say = (number) => String(Number(number.toPrecision(3)));
    return size >= 1e6 ? `${say(value / 1e6)}M` : size >= 1e4 ? `${say(value / 1e3)}k` : say(value);
  }

  /**
   * Puts a label beside each of `points` ({x, y, text} in pixels of `chart`), where it covers neither a point nor another
   * label, inside `frame`; a label that had to go far away gets a line to its point.
   */
  function labelPoints(chart, points, frame) {
    const group = svg("g", { "aria-hidden": "true", "font-size": 12 });
    const height = 15;
    const taken = points.map(({ x, y }) => ({ left: x - 6, right: x + 6, top: y - 6, bottom: y + 6 }));
    const clash = (box) => {
      const outside = box.left < frame.left || box.right > frame.right || box.top < frame.top || box.bottom > frame.bottom;
      const hit = taken.filter((other) => box.left < other.right && box.right > other.left && box.top < other.bottom && box.bottom > other.top);
      return hit.length + (outside ? 100 : 0);
    };
    const lines = [];
    for (const { x, y, text } of points) {
      const width = wide(text);
      let best;
      for (const distance of [9, 20, 32, 46, 62, 80]) {
        for (let step = 0; step < 16; step += 1) {
          const angle = (step / 16) * 2 * Math.PI;
          const [dx, dy] = [Math.cos(angle), Math.sin(angle)];
          const centre = { x: x + dx * (distance + width / 2) * (Math.abs(dx) > 0.3 ? 1 : 0), y: y + dy * (distance + height / 3) };
          const box = { left: centre.x - width / 2, right: centre.x + width / 2, top: centre.y - height / 2, bottom: centre.y + height / 2 };
          const cost = clash(box);
          if (best === undefined || cost < best.cost) best = { cost, box, centre, distance };
          if (cost === 0) break;
        }
        if (best.cost === 0) break;
      }
      taken.push(best.box);
      if (best.distance > 9) {
        const end = { x: Math.max(best.box.left, Math.min(x, best.box.right)), y: Math.max(best.box.top + 2, Math.min(y, best.box.bottom - 2)) };
        lines.push(svg("path", { d: `M${x} ${y}L${end.x} ${end.y}`, stroke: "currentColor", "stroke-opacity": 0.45 }));
      }
      const label = svg("text", { x: best.centre.x, y: best.centre.y + 4, "text-anchor": "middle", fill: "currentColor", stroke: "var(--surface)", "stroke-width": 3, "paint-order": "stroke" });
      label.textContent = text;
      group.append(label);
    }
    group.prepend(...lines);
    chart.append(group);
  }

  /**
   * One small histogram per row, all on one horizontal axis. `bins` are {row, from, to, share, count}; `marks` are
   * {row, at, name} drawn as ticks.
   */
  function ridges({ width, rows, bins, marks = [], label, log = false, ariaLabel, whole = false, height = 38 }) {
    const left = margin(rows, width);
    const right = 16;
    const low = Math.min(...bins.map((bin) => bin.from), ...marks.map((mark) => mark.at));
    const high = Math.max(...bins.map((bin) => bin.to), ...marks.map((mark) => mark.at));
    const inner = width - left - right;
    const x = log
      ? { type: "log", domain: [low, high], label, ticks: logTicks(low, high, inner), tickFormat: plain }
      : { domain: [low, high], label, ticks: whole ? wholeTicks(low, high, inner) : ticks(inner), tickFormat: plain };
    return Plot.plot({
      width,
      height: rows.length * height + 58,
      marginLeft: left,
      marginRight: right,
      marginTop: 4,
      marginBottom: 44,
      ariaLabel,
      x: { ...x, labelAnchor: "center", labelArrow: "none", labelOffset: 38 },
      y: { axis: null, domain: [0, Math.max(...bins.map((bin) => bin.share))] },
      fy: { domain: rows, label: null, padding: 0.18 },
      marks: [
        Plot.axisFy({ anchor: "left", label: null, fontSize: 12, tickFormat: String }),
        Plot.gridX({ ticks: x.ticks, strokeOpacity: 0.12 }),
        Plot.rectY(bins, { fy: "row", x1: "from", x2: "to", y: "share", fill: "var(--mark)", fillOpacity: 0.75, insetLeft: 0.25, insetRight: 0.25 }),
        Plot.ruleY([0], { stroke: "currentColor", strokeOpacity: 0.5 }),
        Plot.ruleX(marks.filter((mark) => mark.name === "median"), { fy: "row", x: "at", stroke: "var(--text)", strokeWidth: 2 }),
        Plot.ruleX(marks.filter((mark) => mark.name !== "median"), { fy: "row", x: "at", stroke: "var(--second)", strokeWidth: 2, strokeDasharray: "3 2" }),
        Plot.axisX({ anchor: "bottom", ticks: x.ticks, tickFormat: plain, label, labelAnchor: "center", labelArrow: "none", labelOffset: 38 }),
      ],
    });
  }

  /** Whole numbers from `low` to `high` that have room. */
  function wholeTicks(low, high, pixels) {
    const most = Math.max(2, Math.floor(pixels / 34));
    const [first, last] = [Math.ceil(low), Math.floor(high)];
    const steps = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000];
    const step = steps.find((candidate) => (last - first) / candidate < most) ?? 10000;
    const found = [];
    for (let tick = Math.ceil(first / step) * step; tick <= last; tick += step) found.push(tick);
    return found;
  }

  Object.assign(specfleet, { wide, margin, ticks, logTicks, wholeTicks, plain, labelPoints, ridges });
}
