from jobs.tests.conftest import *  # noqa: F403 - the fixtures of all tests
