from jobs.tests.e2e.conftest import *  # noqa: F403 - a browser and the whole stack
