"""Drives a real JupyterLab in a real browser, as a reader does.

The browser is Debian's Chromium or another one that is installed; Playwright moves it.
"""

import contextlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys

from playwright.sync_api import expect, sync_playwright

BROWSERS = "chromium", "chromium-browser", "google-chrome"
ADDRESS = re.compile(r"http://(?:localhost|127\.0\.0\.1):\d+")
QUIET = {"fetchNews": "false", "checkForUpdates": False}  # no box about news
ROOMS = "CONFIG", "DATA", "RUNTIME"  # folders in which Jupyter keeps things
START = 60_000  # ms until JupyterLab or a notebook is there
RUN = 120_000  # ms until all cells of a notebook are executed
FINISHED = re.compile(r"^\[\d+\]:$")


def find_browser():
    """The path of a browser, or None."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


@contextlib.contextmanager
def jupyter_lab(folder, home):
    """Start JupyterLab in a folder; yield its address and token, and end it after.

    What it keeps besides goes into the folder `home`.
    """
    settings = home / "config" / "lab" / "user-settings" / "@jupyterlab"
    news = settings / "apputils-extension" / "notification.jupyterlab-settings"
    news.parent.mkdir(parents=True)
    news.write_text(json.dumps(QUIET), encoding="utf-8")
    rooms = {f"JUPYTER_{name}_DIR": str(home / name.lower()) for name in ROOMS}
    token = secrets.token_hex(16)
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--port=0"]
    command += [f"--ServerApp.root_dir={folder}", f"--IdentityProvider.token={token}"]
    if os.name == "posix" and os.geteuid() == 0:
        command.append("--allow-root")
    environment = os.environ | rooms | {"LLMS_OFFLINE": "1"}
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=environment, cwd=folder
    ) as process:
        try:
            yield read_address(process), token
        finally:
            process.terminate()


def read_address(process):
    """Read JupyterLab's address in what it says while it starts."""
    for line in process.stderr:
        if found := ADDRESS.search(line):
            return found[0]
    raise RuntimeError("JupyterLab ended before it said its address")


class Notebook:
    """A notebook that is open in a browser."""

    def __init__(self, page):
        self.page = page

    @property
    def cells(self):
        """All cells."""
        return self.page.locator(".jp-Notebook .jp-Cell")

    def cell(self, text):
        """The first code cell that contains a text."""
        return self.page.locator(".jp-CodeCell").filter(has_text=text).first

    def run_all(self):
        """Run all cells by the menu, and wait until they are executed."""
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        prompts, count = self.page.locator(".jp-CodeCell .jp-InputPrompt"), 0
        for _ in range(RUN // 500):
            self.page.wait_for_timeout(500)
            texts = [text.strip() for text in prompts.all_text_contents()]
            # JupyterLab draws the cells of a long notebook later
            if len(texts) == count and all(map(FINISHED.match, texts)):
                return
            count = len(texts)
        raise AssertionError(f"not all cells are executed: {texts}")

    def output(self, cell):
        """The outputs of a cell, which is scrolled into view."""
        cell.scroll_into_view_if_needed()
        return cell.locator(".jp-OutputArea").first

    def expect_output(self, cell, text):
        """Wait until a cell's output contains a text."""
        expect(self.output(cell)).to_contain_text(text, timeout=START)

    def shown(self, cell):
        """The text of a cell's outputs, and the data of the last picture or None."""
        output = self.output(cell)
        pictures = output.locator("img")
        data = pictures.last.get_attribute("src") if pictures.count() else None
        return output.inner_text(), data

    def wait_for_change(self, cell, before):
        """Wait until `shown` is not as before; return it."""
        for _ in range(START // 100):
            if (now := self.shown(cell)) != before:
                return now
            self.page.wait_for_timeout(100)
        raise AssertionError(f"nothing has changed in {before[0]!r}")

    def set_control(self, cell, label, value):
        """Type a value into an explorer's field that has this label."""
        field = self.output(cell).get_by_label(label, exact=True)
        field.fill(str(value))
        field.press("Tab")

    def write(self, cell, source):
        """Replace the source of a cell by typing, and run it."""
        cell.scroll_into_view_if_needed()
        cell.locator(".cm-content").click()
        self.page.keyboard.press("Control+A")
        self.page.keyboard.insert_text(source)
        self.page.keyboard.press("Control+Enter")

    def save(self):
        """Save it by the keyboard."""
        self.page.keyboard.press("Control+S")
        expect(self.page.locator(".jp-mod-dirty")).to_have_count(0)


class Reader:
    """A person at a browser who reads notebooks in JupyterLab."""

    def __init__(self, browser, address, token):
        self.context = browser.new_context(viewport={"width": 1280, "height": 900})
        self.address, self.token = address, token
        self.errors = []  # what the browser's console says is wrong

    def open(self, path):
        """Open a notebook, given by its path in JupyterLab's folder."""
        page = self.context.new_page()
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.goto(f"{self.address}/doc/tree/{path}?token={self.token}")
        page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=START)
        page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=START)
        return Notebook(page)


@contextlib.contextmanager
def reader(folder, home):
    """A reader of the notebooks in a folder."""
    with jupyter_lab(folder, home) as (address, token), sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_browser(), args=["--no-sandbox"]
        )
        try:
            yield Reader(browser, address, token)
        finally:
            browser.close()
