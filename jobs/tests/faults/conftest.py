from jobs.tests.e2e.conftest import browser, start_stack  # noqa: F401 - fixtures are found by their names
