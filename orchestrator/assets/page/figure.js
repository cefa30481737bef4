"use strict";
// A chart as a reader meets it: a title that says what is seen, the drawing, where its figures come from, and the same
// figures as a table. Without data there is a sentence in place of the drawing.
{
  const { element, table, scrolling } = specfleet;

  /** Redraws what is in `box` whenever its width changes. */
  function fitted(box, draw) {
    let drawn = 0;
    const redraw = () => {
      const width = Math.floor(box.clientWidth);
      if (width === drawn || width === 0) return;
      drawn = width;
      box.replaceChildren(...[draw(width)].flat());
      // One picture with a name each; the same figures are in the table behind it.
      for (const drawing of box.querySelectorAll("svg")) drawing.setAttribute("role", "img");
    };
    new ResizeObserver(redraw).observe(box);
    return () => {
      drawn = 0;
      redraw();
    };
  }

  /**
   * @param id what the chart is called in tests and links
   * @param title what is seen, as a sentence
   * @param draw from a width in pixels to one or several nodes
   * @param caption what the figures are and where they come from
   * @param numbers the same as a table, `{ columns, rows }`
   * @param empty the sentence that stands for a chart without data
   * @param legend entries of [label, colour, shape]
   */
  function figure({ id, title, draw, caption, numbers, empty, legend, many = false }) {
    const heading = element("h3", { id: specfleet.fresh(id) }, title);
    if (!numbers || numbers.rows.length === 0) {
      const sentence = element("p", { class: "empty" }, empty);
      return element("figure", { class: "chart", "data-chart": id, "data-empty": "", "aria-labelledby": heading.id }, heading, sentence);
    }
    const box = element("div", { class: many ? "plot many" : "plot" });
    const behind = element("details", { class: "numbers" }, element("summary", {}, "Numbers", element("span", { class: "hidden" }, ` of: ${title}`)));
    // Large tables are made when somebody asks for them.
    behind.addEventListener("toggle", () => {
      if (behind.open && behind.childElementCount === 1) behind.append(scrolling(title, table({ caption, ...numbers })));
    });
    const made = element(
      "figure",
      { class: "chart", "data-chart": id, "aria-labelledby": heading.id },
      heading,
      legend ? legendOf(legend) : null,
      box,
      element("figcaption", {}, caption),
      behind,
    );
    fitted(box, draw);
    return made;
  }

  const SVG = "http://www.w3.org/2000/svg";

  /** An SVG element with attributes. */
  function svg(name, attributes, ...children) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  const SHAPES = {
    square: (colour) => svg("rect", { x: 1, y: 1, width: 12, height: 12, rx: 2, fill: colour }),
    dot: (colour) => svg("circle", { cx: 7, cy: 7, r: 5, fill: colour }),
    ring: (colour) => svg("circle", { cx: 7, cy: 7, r: 4.5, fill: "none", stroke: colour, "stroke-width": 2 }),
    line: (colour) => svg("path", { d: "M0 7H14", stroke: colour, "stroke-width": 2.5 }),
    dashes: (colour) => svg("path", { d: "M0 7H14", stroke: colour, "stroke-width": 2.5, "stroke-dasharray": "4 2" }),
    thick: (colour) => svg("path", { d: "M0 7H14", stroke: colour, "stroke-width": 7 }),
    tick: (colour) => svg("path", { d: "M7 0V14", stroke: colour, "stroke-width": 2.5 }),
  };

  function legendOf(entries) {
    const swatch = (shape, colour) => svg("svg", { width: 14, height: 14, "aria-hidden": "true" }, SHAPES[shape](colour));
    const entry = ([label, colour, shape = "square"]) => element("li", {}, swatch(shape, colour), label);
    return element("ul", { class: "legend" }, entries.map(entry));
  }

  let made = 0;

  Object.assign(specfleet, {
    figure,
    fitted,
    svg,
    legendOf,
    /** An id that no other element has. */
    fresh: (stem) => `${stem}-${(made += 1)}`,
  });
}
