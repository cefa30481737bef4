"""The dashboard below a path of a proxy that has a name of its own: every page works, and nothing leaves the path."""

import re

import pytest
from playwright.sync_api import expect

from proxy import Proxy
from test_page import WIDTHS, Dashboard, Watched, browser, ledger, live, runs_of, tile  # noqa: F401 (fixtures)

# Browsers take every name below `localhost` for this machine; the dashboard does not.
NAME = "runs.localhost"


@pytest.fixture(scope="module", params=["/specfleet/", "/a/deep%20path/"])
def proxied(request, ledger):  # noqa: F811
    """The address of the first page, through the proxy."""
    dashboard = Dashboard(ledger, "--allow-host", NAME)
    proxy = Proxy(dashboard.url, request.param)
    yield f"http://{NAME}:{proxy.port}{request.param}"
    assert proxy.refused == []
    proxy.stop()
    assert dashboard.stop() == 0


class Passed(Watched):
    """A watched page whose every answer counts."""

    def __init__(self, browser, base, width=1280):  # noqa: F811
        super().__init__(browser, width)
        self.base, self.failures = base, []
        self.page.on("response", lambda answer: self.failures.append((answer.status, answer.url)) if answer.status >= 400 else None)

    def check(self):
        super().check()
        assert self.failures == []
        outside = [asked for asked in self.requests if not asked.startswith((self.base, "data:"))]
        assert outside == [], f"not below {self.base}"


@pytest.mark.parametrize("width", WIDTHS)
def test_list_report_and_comparison_work_below_a_path(browser, proxied, ledger, width):  # noqa: F811
    names = [run["run"] for run in runs_of(ledger)[:2]]
    with Passed(browser, proxied, width) as watched:
        page = watched.page
        page.goto(proxied)
        page.wait_for_selector("tr[data-run]")
        expect(page.locator("#connection")).to_have_text("live")
        expect(page.locator("header nav a[aria-current]")).to_have_text("Runs")
        watched.check()
        # A report, from the list and at its own address.
        page.locator(f"tr[data-run='{names[0]}'] a").click()
        page.wait_for_selector("section.report figure.chart svg", timeout=60_000)
        assert page.url == f"{proxied}runs/{names[0]}"
        expect(page.locator("#connection")).to_have_text("live")
        with page.expect_download() as saved:
            page.get_by_text("Save this report as one file").click()
        assert "specfleet" in saved.value.path().read_text()[:2000]
        page.reload()
        page.wait_for_selector("section.report figure.chart svg", timeout=60_000)
        watched.check()
        # Back to the list by its link, and two runs picked there.
        page.locator("header nav a", has_text="Runs").click()
        page.wait_for_url(proxied)
        for name in names:
            page.get_by_label(f"Pick {name} to compare").check()
        page.get_by_role("button", name="Compare the two").click()
        page.wait_for_url(re.compile(re.escape(proxied) + r"compare\?"))
        page.wait_for_selector("figure.chart svg", timeout=60_000)
        expect(page.locator("header nav a[aria-current]")).to_have_text("Compare")
        # Compared again: the address follows, and still works when it is opened.
        page.locator("#b").select_option(page.locator("#a").input_value())
        page.locator("form button").click()
        page.wait_for_url(re.compile(re.escape(proxied) + rf"compare\?a=([^&]+)&b=\1$"))
        page.reload()
        page.wait_for_selector("figure.chart svg", timeout=60_000)
        watched.check()
        page.locator(".pair h3 a").first.click()
        page.wait_for_selector("section.report", timeout=60_000)
        page.locator("header a.name").click()
        page.wait_for_selector("tr[data-run]")
        assert page.url == proxied
        watched.check()


def test_live_figures_move_below_a_path(browser, proxied, live):  # noqa: F811
    with Passed(browser, proxied) as watched:
        page = watched.page
        page.goto(proxied)
        page.wait_for_selector(".live-panel .tiles", timeout=60_000)
        before = tile(page, "Tokens").inner_text()
        expect(tile(page, "Tokens")).not_to_have_text(before, timeout=30_000)
        page.locator("h2 a").first.click()
        page.wait_for_selector(".live-panel .tiles", timeout=30_000)
        assert page.url.startswith(f"{proxied}runs/")
        before = tile(page, "Tokens").inner_text()
        expect(tile(page, "Tokens")).not_to_have_text(before, timeout=30_000)
        watched.check()


def test_the_proxys_name_has_to_be_allowed(browser, ledger):  # noqa: F811
    dashboard = Dashboard(ledger)
    proxy = Proxy(dashboard.url, "/specfleet/")
    page = browser.new_page()
    answer = page.goto(f"http://{NAME}:{proxy.port}/specfleet/")
    assert answer.status == 403 and "--allow-host" in answer.text()
    page.close()
    proxy.stop()
    assert dashboard.stop() == 0
