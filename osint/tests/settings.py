"""The product's settings with the job types that only tests start."""

from osint.settings import *  # noqa: F403
from osint.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "jobs.tests.sample"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
