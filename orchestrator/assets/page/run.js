"use strict";
// The page of one run: its live figures while it runs, its report from then on.
{
  const { element, ask, listen, apiOf, livePanel, reportSection } = specfleet;

  specfleet.runPage = (main, run) => {
    document.title = `${run} · specfleet`;
    const place = element("div", {});
    main.append(place);
    let panel;
    let done = false;

    const heading = (...after) => [element("h1", {}, `Run ${run}`), ...after];
    const problem = (error) => place.replaceChildren(...heading(element("p", { class: "error", role: "alert" }, error.message)));

    const report = async () => {
      done = true;
      place.replaceChildren(...heading(element("p", { role: "status" }, "Reading the run's rows.")));
      try {
        const data = await ask(`${apiOf(run)}/report`);
        const file = element("a", { href: `${apiOf(run)}/report.html`, download: `${run}.html` }, "Save this report as one file");
        place.replaceChildren(element("p", { class: "small" }, file), reportSection(data));
      } catch (error) {
        done = error.kind !== "still-running" && error.kind !== "busy";
        problem(error);
        if (error.kind === "busy") setTimeout(look, 2000);
      }
    };

    const look = async () => {
      if (done) return;
      try {
        const about = await ask(apiOf(run));
        if (about.state !== "running") {
          panel = undefined;
          await report();
        } else if (!panel) {
          panel = livePanel(run);
          place.replaceChildren(
            ...heading(element("p", { class: "soft" }, `Running: ${about.devices} devices, ${about.verifiers} verifiers, seed ${about.seed}. Its report is there when it has ended; until then its writer holds the store.`)),
            panel.made,
          );
          panel.update(about.live);
        }
      } catch (error) {
        problem(error);
      }
    };

    listen("live", ({ runs }) => {
      const ours = runs.find((other) => other.run === run);
      if (ours && panel) panel.update(ours.live);
      if (!ours && panel) look();
    });
    listen("runs", look);
    look();
  };
}
