"""The product's settings with the benchmarks' own job types."""

from osint.settings import *  # noqa: F403
from osint.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "bench"]
