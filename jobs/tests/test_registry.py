"""A job type is one decorated function: everything else finds it."""

import pytest
from django import forms
from django.test import Client
from rest_framework.authtoken.models import Token

from jobs import registry
from jobs.models import Job
from jobs.registry import register


class WordsForm(forms.Form):
    least = forms.IntegerField(label="From this length", initial=4, min_value=1)


@pytest.fixture
def added():
    """A type that nobody knew when the process started."""
    register("added_words", label="Words, added later", form=WordsForm, describe=lambda p: f"Words from {p['least']}", help="Counts.")(
        lambda tracker, parameters: {}
    )
    yield registry.get("added_words")
    registry.unregister("added_words")


def test_a_type_that_is_added_is_found_everywhere(added, analyst, admin_user):
    page, admin = Client(), Client()
    page.force_login(analyst)
    admin.force_login(admin_user)
    api = Client(headers={"authorization": f"Token {Token.objects.create(user=analyst).key}"})
    assert "Words, added later" in page.get("/jobs/new/").content.decode()
    assert "From this length" in page.get("/jobs/new/added_words/").content.decode()
    assert page.post("/jobs/new/added_words/", {"least": "0", "priority": "10"}).status_code == 422
    assert page.post("/jobs/new/added_words/", {"least": "3", "priority": "10"}).status_code == 302
    made = api.post("/api/jobs", {"job_type": "added_words", "parameters": {"least": 5}}, content_type="application/json")
    assert (made.status_code, made.json()["name"]) == (201, "Words from 5")
    wrong = api.post("/api/jobs", {"job_type": "added_words", "parameters": {"most": 5}}, content_type="application/json")
    assert wrong.status_code == 400
    assert api.get("/api/jobs?type=added_words").json()["count"] == 2
    assert "Words, added later" in page.get("/jobs/?type=added_words").content.decode()
    listed = admin.get("/admin/jobs/job/?job_type=added_words").content.decode()
    assert "Words, added later" in listed
    assert "Words from 3" in listed
    assert set(Job.objects.values_list("name", flat=True)) == {"Words from 3", "Words from 5"}


def test_a_name_is_taken_once(added):
    def another(tracker, parameters):
        return {}

    another.__module__ = "elsewhere"
    with pytest.raises(ValueError, match="registered twice"):
        register("added_words", label="Another")(another)
