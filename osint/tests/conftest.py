from jobs.tests.conftest import *  # noqa: F403 - the fixtures of all tests
from osint.tests.fixtures import pages, site, subject  # noqa: F401
