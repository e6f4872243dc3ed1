"""The report in a real browser: it sorts, fits a phone, and asks for nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-quic", "--window-size=1400,1000"),
)
COLUMN = """
const table = document.querySelector("table.sortable");
const place = [...table.tHead.rows[0].cells].findIndex((cell) => cell.textContent.startsWith(arguments[0]));
return [...table.tBodies[0].rows].map((row) => (row.cells[place].childNodes[0]?.textContent ?? "").trim());
"""

WIDTHS = "const page = document.documentElement; return [page.scrollWidth, page.clientWidth];"

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium and chromedriver are not installed")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser: Any, run: Any, tmp_path: Path) -> Any:
    path = tmp_path / "report.html"
    path.write_text(run.html(), encoding="utf-8")
    browser.get(path.as_uri())
    return browser


def test_a_click_on_a_header_sorts(page: Any) -> None:
    def click(header: str) -> str:
        (found,) = [
            cell
            for cell in page.find_elements("css selector", "table.sortable")[0].find_elements("tag name", "th")
            if cell.text.replace("\xa0", " ").startswith(header)
        ]
        found.find_element("tag name", "button").click()
        return str(found.get_attribute("aria-sort"))

    assert page.execute_script(COLUMN, "method")[:2] == ["teacher", "kd"]
    assert click("accuracy") == "ascending"
    assert page.execute_script(COLUMN, "method")[:3] == ["teacher", "shuffled", "pruned"]
    assert click("accuracy") == "descending"
    assert page.execute_script(COLUMN, "method")[:2] == ["teacher", "kd"]
    assert click("method") == "ascending"
    methods = page.execute_script(COLUMN, "method")
    assert methods[1:] == sorted(methods[1:], key=str.casefold)
    assert len(page.find_elements("css selector", "th[aria-sort]")) == 1
    assert click("gain over") == "ascending"
    gains = page.execute_script(COLUMN, "gain over")[1:]
    assert gains[0].startswith("-62")
    assert gains[-3:] == ["-"] * 3, "the baseline and what has no result come last, however it is sorted"
    click("gain over")
    assert page.execute_script(COLUMN, "gain over")[-3:] == ["-"] * 3


def test_no_width_makes_the_page_scroll_sideways(page: Any) -> None:
    for width in (360, 768, 1280):
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 400}
        page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        wide, shown = page.execute_script(WIDTHS)
        assert wide == shown <= width
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_nothing_is_loaded_and_nothing_complains(page: Any) -> None:
    assert page.get_log("browser") == []
    assert page.execute_script("return performance.getEntriesByType('resource').length") == 0
    colors = "return getComputedStyle(document.querySelector('figure svg text')).fill"
    light = page.execute_script(colors)
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    assert page.execute_script(colors) != light, "figures follow the page into the dark"
