"""Report and dashboard as a browser shows them: nothing overflows, nothing is loaded from elsewhere, figures move."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import urllib.error
import urllib.request

import pytest
from playwright.sync_api import expect, sync_playwright

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("SPECFLEET", str(ROOT / "target" / "release" / "specfleet"))
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]
WIDTHS = [1280, 390]
HOSTILE = "</script><script>document.title='broken out'</script><!--"
# A profile of our own: quick, and from a source that would break out of a careless page.
PROFILE = (
    "device.profile = { name = 'quick', source = %s, kind = 'declared', draft_seconds = 0.0005, "
    "draft_joules = 0.001, prefill_seconds = 0.00001, prefill_joules = 0.00001, uncertainty_seconds = 0.00005, "
    "uncertainty_joules = 0.0001, importance_seconds = 0.00005, importance_joules = 0.0001, idle_watts = 0.4 }"
) % json.dumps(HOSTILE)


def specfleet(*arguments, **options):
    return subprocess.run([BINARY, *arguments], check=True, text=True, capture_output=True, timeout=300, **options)


def runs_of(ledger):
    return json.loads(specfleet("runs", "--ledger", str(ledger), "--json").stdout)


@pytest.fixture(scope="module")
def ledger(tmp_path_factory):
    """Two runs of one scenario with different seeds."""
    ledger = tmp_path_factory.mktemp("ledger")
    for seed in ("1", "2"):
        specfleet(
            "run", "--ledger", str(ledger), "--ui", "none", "--seed", seed, "--devices", "4", "--prompts", "6",
            "--max-new-tokens", "24", "--methods", "slm-only,llm-only,hlm,u-hlm,ui-hlm,block",
            "--set", PROFILE, "--set", "device.link=ethernet",
        )
    return ledger


@pytest.fixture(scope="module")
def browser():
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    assert path, "chromium is missing: .ci/python installs it"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


class Watched:
    """A page of the browser, and everything it complains about or asks for."""

    def __init__(self, browser, width=1280, scheme="light"):
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.complaints, self.requests = [], []
        self.page.on("console", lambda said: self.complaints.append(said.text) if said.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.page.close()

    def check(self):
        assert self.complaints == []
        overflow = self.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        # What a script puts into a page by mistake: an object's name, a value that is not there.
        text = self.page.inner_text("body")
        assert re.findall(r".{0,40}(?:\[object|\bundefined\b|\bNaN\b).{0,40}", text) == []
        assert overflow[0] <= overflow[1], f"the page is {overflow[0]} pixels wide in a window of {overflow[1]}"


@pytest.fixture(scope="module")
def report(ledger, tmp_path_factory):
    file = tmp_path_factory.mktemp("report") / "report.html"
    names = [run["run"] for run in runs_of(ledger)]
    specfleet("report", *names, "--ledger", str(ledger), "--html", str(file))
    return file


# What every chart must have; the reasons it does not, as a list.
LABELS = """
() => [...document.querySelectorAll("figure.chart")].flatMap((figure) => {
  const name = figure.dataset.chart ?? figure.textContent.slice(0, 40);
  const title = document.getElementById(figure.getAttribute("aria-labelledby"))?.textContent ?? "";
  const problems = title.length < 8 ? [`${name}: no title`] : [];
  if ("empty" in figure.dataset) return figure.querySelector(".empty").textContent.length > 20 ? problems : [...problems, `${name}: empty without a sentence`];
  const drawings = [...figure.querySelectorAll(".plot svg")];
  if (drawings.length === 0) problems.push(`${name}: nothing is drawn`);
  if ((figure.querySelector("figcaption")?.textContent ?? "").length < 30) problems.push(`${name}: no caption`);
  if (!figure.querySelector("details.numbers")) problems.push(`${name}: no numbers behind it`);
  const labels = drawings.flatMap((drawing) => [...drawing.querySelectorAll('[aria-label$="axis label"] text, [aria-label$="axis label"]')].map((label) => label.textContent.trim())).filter(Boolean);
  if (labels.length === 0) problems.push(`${name}: no axis has a label`);
  for (const label of labels) if (!/\\(.+\\)/.test(label)) problems.push(`${name}: axis "${label}" has no unit`);
  for (const drawing of drawings) {
    if (!drawing.getAttribute("aria-label")) problems.push(`${name}: a drawing without a name`);
    const box = figure.getBoundingClientRect();
    for (const text of drawing.querySelectorAll("text")) {
      const at = text.getBoundingClientRect();
      if (at.width > 0 && (at.left < box.left - 1 || at.right > box.right + 1)) problems.push(`${name}: "${text.textContent}" is cut off`);
    }
    for (const axis of ["x", "y", "fy"]) {
      const ticks = [...drawing.querySelectorAll(`[aria-label^="${axis}-axis tick label"] text`)].map((tick) => [tick.textContent, tick.getBoundingClientRect()]);
      ticks.forEach(([text, a], index) => ticks.slice(index + 1).forEach(([other, b]) => {
        if (a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 3 && b.top < a.bottom - 3) problems.push(`${name}: ticks "${text}" and "${other}" overlap`);
      }));
    }
  }
  return problems;
})
"""


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_report_is_whole_at_every_width(browser, report, width, scheme):
    with Watched(browser, width, scheme) as watched:
        watched.page.goto(report.as_uri())
        watched.page.wait_for_selector("html[data-ready]")
        watched.page.wait_for_selector("figure.chart svg")
        watched.page.wait_for_timeout(500)
        assert watched.page.evaluate(LABELS) == []
        assert watched.page.locator("section.report").count() == 2
        charts = {figure.get_attribute("data-chart") for figure in watched.page.locator("figure.chart").all()}
        expected = {"energy", "pareto", "batches", "risk", "timeline", "positions", "answers", "damage", "latency-inter-token-latency"}
        assert expected <= charts, charts
        for details in watched.page.locator("details").all():
            details.locator("summary").first.click()
        assert watched.page.locator("details.numbers table tbody tr").count() > 50
        watched.check()
        assert watched.requests == [report.as_uri()]


def test_report_says_what_the_run_says(browser, ledger, report):
    with Watched(browser) as watched:
        watched.page.goto(report.as_uri())
        watched.page.wait_for_selector("html[data-ready]")
        text = watched.page.locator("main").inner_text()
        for run in runs_of(ledger):
            assert f"Run {run['run']}" in text and run["scenario_hash"][:16] in text
        assert "VALID" in text and "BERTScore" in text
        rows = watched.page.locator("section.report").first.locator("table").first.locator("tbody tr")
        assert [row.locator("th").inner_text() for row in rows.all()] == ["slm-only", "llm-only", "hlm", "u-hlm", "ui-hlm", "block"]


def test_nothing_breaks_out_of_the_report(browser, report):
    assert HOSTILE not in report.read_text()
    with Watched(browser) as watched:
        watched.page.goto(report.as_uri())
        watched.page.wait_for_selector("html[data-ready]")
        assert watched.page.title().startswith("specfleet")
        watched.page.locator("details", has_text="Scenario").first.locator("summary").click()
        assert "document.title='broken out'" in watched.page.locator("details pre").first.inner_text()
        assert watched.complaints == []


class Dashboard:
    def __init__(self, ledger, *flags):
        command = [BINARY, "dashboard", "--ledger", str(ledger), "--listen", "0", *flags]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        line = self.process.stderr.readline()
        self.url = re.search(r"http://\S+", line).group().rstrip("/")

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=5)


@pytest.fixture(scope="module")
def dashboard(ledger):
    dashboard = Dashboard(ledger)
    yield dashboard
    assert dashboard.stop() == 0


@pytest.fixture
def live(ledger):
    """A run that goes on for minutes unless it is stopped."""
    command = [BINARY, "run", "--ledger", str(ledger), "--ui", "none", "--devices", "4", "--prompts", "2000", "--methods", "ui-hlm"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield process
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)


def tile(page, name):
    return page.locator(".tile", has=page.locator("dt", has_text=re.compile(f"^{name}$"))).locator("dd").first


@pytest.mark.parametrize("width", WIDTHS)
def test_figures_of_a_running_fleet_move_and_its_run_opens(browser, dashboard, live, width):
    with Watched(browser, width) as watched:
        page = watched.page
        page.goto(dashboard.url)
        page.wait_for_selector(".live-panel .tiles", timeout=60_000)
        assert page.locator("#connection").inner_text() == "live"
        before = tile(page, "Tokens").inner_text()
        expect(tile(page, "Tokens")).not_to_have_text(before, timeout=30_000)
        assert page.locator("figure.live svg").count() >= 5
        watched.check()
        # Its own page, from then on with the report once it has ended.
        page.locator("h2 a").first.click()
        page.wait_for_selector(".live-panel .tiles", timeout=30_000)
        assert "when it has ended" in page.locator("main").inner_text()
        watched.check()
        live.send_signal(signal.SIGINT)
        page.wait_for_selector("section.report", timeout=60_000)
        assert "INVALID" in page.locator("section.report").inner_text()
        watched.check()


@pytest.mark.parametrize("width", WIDTHS)
def test_a_stored_run_is_reported(browser, dashboard, ledger, width):
    run = runs_of(ledger)[0]["run"]
    with Watched(browser, width) as watched:
        watched.page.goto(f"{dashboard.url}/runs/{run}")
        watched.page.wait_for_selector("section.report figure.chart svg", timeout=60_000)
        watched.page.wait_for_timeout(500)
        assert watched.page.evaluate(LABELS) == []
        watched.check()
        assert all(request.startswith((dashboard.url, "data:")) for request in watched.requests), watched.requests


def shown_runs(page):
    """The two runs that a comparison shows, in its order."""
    return [page.locator(f"#{place}").input_value() for place in ("a", "b")]


@pytest.mark.parametrize("width", WIDTHS)
def test_two_runs_are_compared_by_keyboard_alone(browser, dashboard, ledger, width):
    names = [run["run"] for run in runs_of(ledger)[:2]]
    with Watched(browser, width) as watched:
        page = watched.page
        page.goto(dashboard.url)
        page.wait_for_selector("tr[data-run]")
        focused = lambda: page.evaluate("(document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent).trim()")
        page.keyboard.press("Tab")
        assert focused() == "Skip to content"
        assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0, "the skip link is not seen"
        seen = []
        for _ in range(60):
            page.keyboard.press("Tab")
            seen.append(focused())
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none", f"{seen[-1]} has the focus and does not show it"
            if any(seen[-1] == f"Pick {name} to compare" for name in names):
                page.keyboard.press("Space")
            if all(f"Pick {name} to compare" in seen for name in names):
                break
        else:
            raise AssertionError(f"the keyboard does not reach both runs: {seen}")
        for _ in range(60):
            page.keyboard.press("Shift+Tab")
            if focused().startswith("Compare the two"):
                break
        page.keyboard.press("Enter")
        page.wait_for_url("**/compare?*")
        page.wait_for_selector("figure.chart svg", timeout=60_000)
        text = page.locator("main").inner_text()
        assert all(name in text for name in names) and "seed" in text and "differs" in text
        # Paired, as the command says it: which is the first run's figure minus the second's.
        comparison = json.loads(specfleet("compare", *shown_runs(page), "--ledger", str(ledger), "--json").stdout)
        method = page.locator("#method").input_value()
        rows = {row["metric"]: row for row in comparison["rows"] if row["method_a"] == method}
        shown = page.locator("[aria-label='Differences paired by prompt'] tbody tr").all_inner_texts()
        # The unit stands under the metric.
        shown = {row.split()[0]: row.split("\t")[1:] for row in shown}
        assert set(shown) == set(rows) and "energy_per_token_joules_total" in rows
        for metric, row in rows.items():
            pairs, first, second, difference, *_, more = shown[metric]
            number = lambda text: float(text.split(" ")[0].replace("−", "-").replace(",", ""))
            said = "one run each" if row["adjusted_p_value"] is None else "yes" if row["significant"] else "no"
            assert int(pairs) == row["pairs"] and more == said, metric
            assert number(first) == pytest.approx(row["mean_a"], rel=1e-3, abs=1e-9), metric
            assert number(second) == pytest.approx(row["mean_b"], rel=1e-3, abs=1e-9), metric
            assert number(difference) == pytest.approx(-row["difference"], rel=1e-3, abs=1e-9), metric
        page.wait_for_timeout(500)
        watched.check()


def test_the_list_is_filtered(browser, dashboard, ledger):
    first = runs_of(ledger)[0]["run"]
    with Watched(browser) as watched:
        page = watched.page
        page.goto(dashboard.url)
        page.wait_for_selector("tr[data-run]")
        page.get_by_label("Filter").fill(first)
        expect(page.locator("tr[data-run]")).to_have_count(1)
        page.get_by_label("Filter").fill("no such run")
        expect(page.locator("tr[data-run]")).to_have_count(0)
        assert "0 of " in page.locator("main [role=status]").inner_text()
        watched.check()


def test_nothing_can_be_changed(dashboard):
    for path in ("/", "/api/runs", "/events"):
        for method in ("POST", "PUT", "DELETE"):
            request = urllib.request.Request(dashboard.url + path, method=method, data=b"")
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(request, timeout=10)
            assert refused.value.code == 405
    with urllib.request.urlopen(dashboard.url, timeout=10) as answer:
        policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'") and "unsafe" not in policy


def test_an_unknown_run_says_so(browser, dashboard):
    with Watched(browser, 390) as watched:
        watched.page.goto(f"{dashboard.url}/runs/nothing-of-the-kind")
        watched.page.wait_for_selector("[role=alert]")
        assert "no run nothing-of-the-kind" in watched.page.locator("[role=alert]").inner_text()
