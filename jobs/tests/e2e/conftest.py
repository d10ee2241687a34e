"""A browser, and the whole stack in other processes on the test database."""

import os
import socket

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright

from jobs.tests.fixtures import Stack

expect.set_options(timeout=30_000)  # what is waited for may need a worker, on a busy machine
started = []  # one browser for all folders of tests: Playwright runs once in a process


@pytest.fixture(scope="session")
def browser():
    if started:
        yield started[0]
        return
    # Playwright's loop runs in this thread; the ORM calls of the tests are made between its steps
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    with sync_playwright() as playwright:
        # as root, in a container, chromium has no sandbox
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
        browser = playwright.chromium.launch(executable_path=os.environ.get("CHROMIUM") or None, args=arguments)
        started.append(browser)
        yield browser
        browser.close()


@pytest.fixture
def start_stack(transactional_db):
    started = []

    def start(**options):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        started.append(Stack(port, **options))
        return started[-1]

    yield start
    for stack in started:
        stack.stop()


@pytest.fixture
def stack(start_stack):
    return start_stack()


class Viewer:
    """Somebody who is signed in, in a browser of their own."""

    def __init__(self, browser, base, name, **options):
        self.base = base
        self.context = browser.new_context(base_url=base, viewport={"width": 1280, "height": 860}, **options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.errors = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda m: self.errors.append(m.text) if "Content Security Policy" in m.text else None)
        self.page.goto("/sign-in/")
        self.page.fill("#id_username", name)
        self.page.fill("#id_password", "pw")
        self.page.press("#id_password", "Enter")
        self.page.wait_for_url(f"{base}/")

    def close(self):
        self.context.close()
        assert self.errors == []


@pytest.fixture
def sign_in(browser, stack):
    """Opens browsers; at the end none may have met an error of a script or of the content policy."""
    viewers = []

    def open_browser(name="ortega", base=stack.base, **options):
        viewers.append(Viewer(browser, base, name, **options))
        return viewers[-1].page

    yield open_browser
    for viewer in viewers:
        viewer.close()


def barriers(page, path):
    """What axe-core finds on the page that is open, each as a sentence."""
    answer = Axe().run(page).response
    assert len(answer["passes"]) > 15, "axe did not look"
    return [f"{path}: {rule['impact']} {rule['id']}: {rule['nodes'][0]['html'][:200]}" for rule in answer["violations"]]
