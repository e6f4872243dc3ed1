"""What a person sees: MLflow's own UI in a real browser, opened at the links that a sync returns.

The saved views' format is undocumented: this is the test that tells when a new MLflow reads it differently.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kdbench.store.mlflow_client import default_tracking_uri
from kdbench.store.mlflow_server import Server, start_server
from kdbench.store.mlflow_view import SyncResult, sync

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-quic", "--window-size=1600,1000"),
)
PATIENCE = 120  # seconds; a page takes two or three where nothing else runs

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium and chromedriver are not installed")


@pytest.fixture(scope="module")
def synced(story: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, SyncResult]:
    uri = default_tracking_uri(tmp_path_factory.mktemp("results"))
    return uri, sync(uri, *story.arguments())


@pytest.fixture(scope="module")
def server(synced: tuple[str, SyncResult]) -> Iterator[Server]:
    with start_server(synced[0], port=0) as running:
        yield running


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
def page(browser: Any, server: Server, synced: tuple[str, SyncResult]) -> Callable[[str, Callable[[str], bool]], str]:
    """Opens a path and returns the page's text once `ready` says that it has loaded."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    def opened(path: str, ready: Callable[[str], bool]) -> str:
        browser.get("about:blank")  # a change of the fragment alone loads nothing
        browser.get(server.url)
        # MLflow opens its assistant over a third of the first page that a browser sees.
        browser.execute_script("localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')")
        browser.get("about:blank")
        browser.get(server.url + path)

        def text() -> str:
            return str(browser.execute_script("return document.body ? document.body.innerText : ''"))

        WebDriverWait(browser, PATIENCE).until(lambda _: ready(text()), message=f"{path} never showed what it should")
        assert browser.find_elements(By.TAG_NAME, "body")
        return text()

    return opened


def test_the_leaderboard_opens_sorted_with_its_numbers(page: Any, synced: tuple[str, SyncResult]) -> None:
    text = page(synced[1].view_url_path, lambda text: "scratch | first run" in text and "70.04" in text)

    rows = [text.index(f"{method} | first run") for method in ("kd", "fitnets", "scratch")]
    assert rows == sorted(rows), "the best method is the first row"
    for shown in ("Leaderboard: first run", "74.47 ± 0.50", "works", "74.47", "4.43", "acc_pct", "gain_pp", "verdict"):
        assert shown in text
    assert "seed 0" not in text, "the trials are nested, not rows of the leaderboard"
    assert "[report]" not in text


def test_the_charts_show_gains(page: Any, synced: tuple[str, SyncResult]) -> None:
    text = page(synced[1].charts_url_path, lambda text: "Benefit against cost" in text and "gain_pp" in text)

    assert "Charts: first run" in text
    assert "kd | first run" in text


def test_the_report_is_a_page_with_the_whole_table(page: Any, synced: tuple[str, SyncResult]) -> None:
    text = page(synced[1].report_url_path, lambda text: "70.04 ± 0.50" in text)

    for shown in ("[report] first run", "quickstart@1.0", "kd", "74.47 ± 0.50", "leaderboard-table.json"):
        assert shown in text
