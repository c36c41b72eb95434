"""The site, built once for all tests, on a server of this machine; and a Chromium that can reach nothing else."""

import contextlib
import functools
import http.server
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[3]
MAC = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
NAMES = ("chromium", "chromium-browser", "google-chrome", MAC)
QUIET = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]


def build(root, target):
    """Run build.py of the repository at `root`."""
    command = [sys.executable, root / "docs" / "site" / "build.py", target]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Where the built site lies."""
    target = tmp_path_factory.mktemp("built") / "site"
    done = build(ROOT, target)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(scope="session")
def address(folder):
    """http://127.0.0.1:..., below which the site is, as GitHub Pages has it, in a folder."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder.parent))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/{folder.name}"
    server.shutdown()


@pytest.fixture(scope="session")
def chromium():
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if not path:
        pytest.exit("there is no Chromium or Chrome: install one (apt-get install chromium), or name it in CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def opened(chromium, address):
    """A context: a page at the desktop's width.

    page.problems: what the console, failed requests and requests to other places said.
    """

    @contextlib.contextmanager
    def open_page():
        page = chromium.new_page(viewport={"width": 1280, "height": 900})
        page.problems = problems = []

        def elsewhere(request):
            if not request.url.startswith((address, "data:", "file:")):
                problems.append(f"asks for {request.url}")

        page.on("request", elsewhere)
        page.on("console", lambda said: problems.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("response", lambda got: problems.append(f"{got.status} {got.url}") if got.status >= 400 else None)
        yield page
        page.close()

    return open_page


@pytest.fixture
def page(opened):
    """A page on which nothing may go wrong."""
    with opened() as page:
        yield page
    assert page.problems == []
