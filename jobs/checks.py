"""Wrong set-up fails at start, in words."""

import os
import platform
import sys
from typing import Any

import redis
from django.conf import settings
from django.core.checks import Error, Tags, register
from django.db import connection


@register(Tags.database)
def check_database(databases: Any = None, **_: Any) -> list[Error]:
    """SQLite must take its write lock at BEGIN, or two writers meet in a deadlock that no timeout ends."""
    if connection.vendor != "sqlite":
        return []
    options = connection.settings_dict.get("OPTIONS", {})
    if options.get("transaction_mode") == "IMMEDIATE" and "WAL" in options.get("init_command", ""):
        return []
    return [Error("SQLite needs transaction_mode IMMEDIATE and journal mode WAL.", id="jobs.E001")]


@register()
def check_platform(**_: Any) -> list[Error]:
    """pidfd_open needs Linux 5.3, and its use with poll and fork here was tested from 5.4."""
    if sys.platform != "linux" or not hasattr(os, "pidfd_open"):
        return [Error("Jobs run on Linux 5.4 or later, with Python 3.11 or later.", id="jobs.E002")]
    major, minor = (int(part) for part in platform.release().split(".")[:2])
    if (major, minor) < (5, 4):
        return [Error(f"Linux 5.4 or later is needed; this is {platform.release()}.", id="jobs.E002")]
    return []


@register()
def check_secret_key(**_: Any) -> list[Error]:
    """Whoever knows the key can have a worker run any function: django-q2 messages are signed pickles."""
    if not settings.DEBUG and (len(settings.SECRET_KEY) < 40 or settings.SECRET_KEY.startswith("django-insecure")):
        return [Error("SECRET_KEY must be random and at least 40 characters long.", id="jobs.E003")]
    return []


@register()
def check_redis(**_: Any) -> list[Error]:
    if not settings.REDIS_URL:
        return []
    try:
        redis.Redis.from_url(settings.REDIS_URL, socket_connect_timeout=2).ping()
    except redis.RedisError as error:
        return [Error(f"REDIS_URL is set but Redis does not answer: {error}", id="jobs.E004")]
    return []
