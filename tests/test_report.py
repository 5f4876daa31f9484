"""The report in a real browser: offline, at two widths, on paper, and under attack."""

import os
import shutil

import pytest

from thalweg.study import StoreError
from thalweg.study.charts._axes import Axis, span
from thalweg.study.report import write_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)


@pytest.fixture
def reports(finished, diverged):
    return {"tiny": finished / "report.html", "wild": diverged / "report.html"}


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("Chromium is missing: install the package `chromium`")
        pytest.skip("needs Chromium (or Google Chrome) on the PATH")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-background-networking"]
        )
        yield browser
        browser.close()


def opened(browser, path, **options):
    """A page, everything it asked for, and everything it complained about."""
    page = browser.new_context(**options).new_page()
    asked, complaints = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(path.as_uri())
    return page, asked, complaints


@pytest.mark.browser
@pytest.mark.parametrize("name", ["tiny", "wild"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_the_browser(browser, reports, name, width, scheme):
    page, asked, complaints = opened(
        browser,
        reports[name],
        viewport={"width": width, "height": 844},
        color_scheme=scheme,
        offline=True,
    )
    assert [url for url in asked if not url.startswith("data:")] == [reports[name].as_uri()]
    assert complaints == []
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(overflow) == 0
    verdict = page.locator("#verdict").bounding_box()
    assert verdict["y"] < 400, "the verdict comes first"
    assert page.locator("ul.verdict li").count() >= 5
    charts = page.locator("figure svg.chart")
    assert charts.count() >= 5
    for i in range(charts.count()):
        box = charts.nth(i).bounding_box()
        assert box["width"] > min(width, 450) * 0.7
        assert box["height"] > 100
        assert charts.nth(i).locator("path.line, circle.dot").count() >= 1
        assert "NaN" not in charts.nth(i).inner_html()
        assert "nan" not in charts.nth(i).inner_html()
    page.context.close()


@pytest.mark.browser
def test_text_from_a_spec_does_not_run(browser, reports):
    page, _, _ = opened(browser, reports["wild"])
    assert page.title() == "<script>document.title = 'owned'</script> & 'co' · thalweg"
    assert page.locator("script").count() == 0
    assert "diverged at step" in page.locator("#verdict").inner_text()
    page.context.close()


@pytest.mark.browser
def test_on_paper(browser, reports):
    page, _, _ = opened(browser, reports["tiny"])
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.context.close()


def test_the_report_needs_only_the_store(reports):
    first = reports["tiny"].read_text()
    reports["tiny"].unlink()
    assert write_report(reports["tiny"].parent).read_text() == first
    for word in (
        "Verdict",
        "limit of stability",
        "Methods to cite",
        "BibTeX",
        "Gradient-equivalents".lower(),
    ):
        assert word in first
    assert "http://www.w3.org/2000/svg" in first
    assert first.count("http") == first.count("http://www.w3.org/2000/svg"), "no other address"


def test_no_store_no_report(tmp_path):
    with pytest.raises(StoreError, match=r"holds no study\.zarr"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0, 20, ["0", "5", "10", "15", "20"]),
        (-0.35, 0.1, ["−0.3", "−0.2", "−0.1", "0.0", "0.1"]),
        (0, 0.003, ["0.000", "0.001", "0.002", "0.003"]),
    ],
)
def test_linear_ticks(low, high, labels):
    assert [label for _, label in Axis(low, high, 0, 1).ticks()] == labels


def test_logarithmic_ticks_and_pixels():
    axis = Axis(1e-6, 1e2, 0, 80, logarithmic=True)
    assert [label for _, label in axis.ticks()] == ["10⁻⁶", "10⁻⁴", "0.01", "1", "100"]
    assert axis(1e-2) == pytest.approx(40)
    assert axis(0) == 0
    assert len(Axis(2.0, 7.5, 0, 1, logarithmic=True).ticks()) >= 2
    assert span([float("nan"), 0.0], True) == (0.1, 1.0)
    low, high = span([3.0], False)
    assert low < 3 < high
