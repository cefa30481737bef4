"use strict";
// The start of a report in a file: its data lie in the page.
{
  const { element, reportSection } = specfleet;
  const reports = JSON.parse(document.getElementById("reports").textContent);
  const main = document.getElementById("main");
  const sections = reports.map(reportSection);
  if (sections.length > 1) {
    const link = (section) => element("li", {}, element("a", { href: `#${section.firstElementChild.id}` }, section.dataset.run));
    main.append(element("nav", { "aria-label": "Runs in this report" }, element("ul", {}, sections.map(link))));
  }
  main.append(...sections);
  document.documentElement.dataset.ready = "";
}
