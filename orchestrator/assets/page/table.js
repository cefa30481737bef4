"use strict";
// Tables: the numbers behind a chart, and the figures of the methods. A wide table scrolls in its own box, by keyboard too.
{
  const { element, fixed } = specfleet;

  /** A box that scrolls sideways; a region that the keyboard reaches, with a name. */
  function scrolling(name, table) {
    return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": name }, table);
  }

  const cell = (content) => {
    const empty = content === undefined || content === null || content === "";
    return element("td", { class: empty ? "none" : undefined }, empty ? "–" : content);
  };

  /**
   * `columns` are headings, or [heading, unit]; each row's first cell is its heading.
   */
  function table({ caption, columns, rows, words = false }) {
    const heading = (column) => {
      const [title, unit] = Array.isArray(column) ? column : [column];
      return element("th", { scope: "col" }, title, unit ? element("span", { class: "unit" }, unit) : null);
    };
    return element(
      "table",
      { class: words ? "words" : undefined },
      element("caption", { class: "hidden" }, caption),
      element("thead", {}, element("tr", {}, columns.map(heading))),
      element(
        "tbody",
        {},
        rows.map(([first, ...rest]) => element("tr", {}, element("th", { scope: "row" }, first ?? ""), rest.map(cell))),
      ),
    );
  }

  /** Samples that a percentile needs: by nearest rank it is the largest of any fewer. */
  const LEAST = { p90: 10, p95: 20, p99: 100 };

  /** One row per method, one column of `columns` for each figure that any method has. */
  function methodTable(report, columns, name) {
    if (report.methods.length === 0) return element("p", { class: "soft" }, "No method has figures: the run has no closed generation.");
    const shown = columns.filter((column) => report.methods.some((method) => method.metrics[column.key]));
    const value = (method, { key, statistic, factor, decimals }) => {
      const metric = method.metrics[key];
      if (!metric || !Number.isFinite(metric[statistic])) return "";
      return `${fixed(metric[statistic] * factor, decimals)}${metric.count < (LEAST[statistic] ?? 1) ? "*" : ""}`;
    };
    const made = table({
      caption: name,
      columns: ["method", ...shown.map((column) => [column.title, column.unit])],
      rows: report.methods.map((method) => [method.name, ...shown.map((column) => value(method, column))]),
    });
    return [element("p", { class: "soft small" }, "One row per method; – where a figure does not apply; * the largest sample, where a p95 has fewer than 20, a p90 than 10, a p99 than 100."), scrolling(name, made)];
  }

  Object.assign(specfleet, { scrolling, table, methodTable });
}
