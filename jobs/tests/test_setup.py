"""Settings, system checks and the front doors."""

import os
import subprocess
import sys

import pytest
from django.core.management import CommandError, call_command

from jobs import checks
from jobs.supervisor import is_loopback
from jobs.tests.fixtures import ROOT


def manage(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    names = ("DATABASE_URL", "REDIS_URL", "PUBLIC_URL", "SECRET_KEY", "DEBUG", "JOBS", "DJANGO_SETTINGS_MODULE")
    clean = {name: value for name, value in os.environ.items() if name not in names}
    return subprocess.run(
        [sys.executable, "manage.py", *arguments], cwd=ROOT, env={**clean, **environment}, capture_output=True, text=True, check=False
    )


def test_debug_is_off_and_a_key_is_made_at_the_first_run(tmp_path):
    state = tmp_path / "state"
    show = "from django.conf import settings as s; print(s.DEBUG, len(s.SECRET_KEY), s.FETCH_ALLOW_PRIVATE)"
    first = manage("shell", "-v0", "-c", show, STATE_DIR=str(state))
    assert first.stdout.split() == ["False", "86", "[]"], first.stderr
    key = (state / "secret_key").read_text()
    assert oct((state / "secret_key").stat().st_mode)[-3:] == "600"
    assert oct(state.stat().st_mode)[-3:] == "700"
    manage("check", STATE_DIR=str(state))
    assert (state / "secret_key").read_text() == key


def test_a_server_database_needs_a_key_of_its_own(tmp_path):
    result = manage("check", STATE_DIR=str(tmp_path), DATABASE_URL="postgres://u:p@localhost/x")
    assert result.returncode != 0
    assert "SECRET_KEY is not set" in result.stderr


def test_deployment_checks_are_clean_with_a_public_url(tmp_path):
    result = manage("check", "--deploy", "--fail-level", "WARNING", STATE_DIR=str(tmp_path), PUBLIC_URL="https://fieldwork.example.org")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("name", "value", "why"), [("PUBLIC_URL", "fieldwork", "must look like"), ("FETCH_ALLOW_PRIVATE", "10.0.0.0/8", "host:port")]
)
def test_settings_that_make_no_sense_are_named(tmp_path, name, value, why):
    result = manage("check", STATE_DIR=str(tmp_path), **{name: value})
    assert result.returncode != 0
    assert why in result.stderr


def test_up_binds_to_loopback_only_without_a_public_url():
    with pytest.raises(CommandError, match="PUBLIC_URL"):
        call_command("up", host="0.0.0.0")
    assert [is_loopback(h) for h in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "example.org")] == [True, True, True, False, False]


def test_a_queue_that_no_type_names_is_refused():
    with pytest.raises(CommandError, match="Queues are: default, heavy"):
        call_command("jobcluster", queue="odd")


def test_a_weak_key_is_refused(settings):
    settings.SECRET_KEY = "django-insecure-" + "x" * 60
    assert [error.id for error in checks.check_secret_key()] == ["jobs.E003"]
    settings.SECRET_KEY = "x" * 64
    assert checks.check_secret_key() == []


def test_a_redis_that_is_not_there_is_named(settings):
    settings.REDIS_URL = "redis://127.0.0.1:1"
    assert [error.id for error in checks.check_redis()] == ["jobs.E004"]


def test_sqlite_without_wal_is_refused(monkeypatch):
    monkeypatch.setattr(checks.connection, "vendor", "sqlite", raising=False)
    monkeypatch.setitem(checks.connection.settings_dict, "OPTIONS", {})
    assert [error.id for error in checks.check_database()] == ["jobs.E001"]


def test_migrations_are_complete(db):
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)
