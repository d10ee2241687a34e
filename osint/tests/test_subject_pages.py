"""The pages of a subject: what they show, to whom, and what can be done there."""

import hashlib

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse

from jobs.errors import InvalidParameters
from jobs.manager import JobManager
from jobs.models import Job
from osint.models import Document, DuplicatePair, Entity, Subject, Upload
from osint.search import search
from osint.tests.fixtures import add_document, run_here

pytestmark = pytest.mark.django_db

TABS = ("documents", "entities", "timeline", "duplicates", "files", "search", "investigate", "upload")
TEXT = "Anna Keller met Anna Kellar in Zürich on 3 June 2023. Keller Anna wrote to a.keller@meridian.com about the board of directors."


@pytest.fixture
def filled(subject, analyst):
    add_document(subject, TEXT, title="The meeting")
    add_document(subject, TEXT + " The directors of the board agreed.", title="<script>alert(1)</script>")
    for job_type in ("entity_extraction", "timeline_assembly", "duplicate_detection", "data_export"):
        run_here(job_type, subject, analyst)
    return subject


def tab(subject, name):
    return reverse(f"subject-{name}", args=[subject.pk])


def test_what_is_outside_ones_scope_is_not_there(client, filled, other):
    client.force_login(other)
    entity, document, pair = filled.entities.first(), filled.documents.first(), filled.duplicate_pairs.first()
    for address in (
        filled.get_absolute_url(),
        *(tab(filled, name) for name in TABS),
        entity.get_absolute_url(),
        document.get_absolute_url(),
    ):
        assert client.get(address).status_code == 404, address
    assert client.post(reverse("decide-pair", args=[pair.pk]), {"decision": "same"}).status_code == 404
    assert client.get(f"/api/subjects/{filled.pk}/search?q=board").status_code == 404
    assert client.post(tab(filled, "upload"), {"files": SimpleUploadedFile("a.txt", b"x")}).status_code == 404
    filled.members.add(other)
    for name in TABS:
        assert client.get(tab(filled, name)).status_code == 200, name
    client.logout()
    assert client.get(tab(filled, "entities")).status_code == 302


def test_members_see_what_others_found(client, filled, other):
    filled.members.add(other)
    client.force_login(other)
    assert "Anna Keller" in client.get(tab(filled, "entities")).content.decode()
    assert "3 Jun 2023" in client.get(tab(filled, "timeline")).content.decode()


@pytest.mark.parametrize("name", TABS)
def test_empty_pages_say_what_will_be_there(client, subject, analyst, name):
    client.force_login(analyst)
    page = client.get(tab(subject, name))
    assert page.status_code == 200
    assert "None" not in page.content.decode().split("<main")[1]


def test_every_page_is_made_with_a_constant_number_of_queries(client, filled, analyst, django_assert_max_num_queries):
    client.force_login(analyst)
    for n in range(40):
        add_document(filled, TEXT, title=f"More {n}")
    run_here("entity_extraction", filled, analyst)
    run_here("timeline_assembly", filled, analyst)
    for name in ("documents", "entities", "timeline", "duplicates", "files"):
        with django_assert_max_num_queries(30):
            client.get(tab(filled, name))
    with django_assert_max_num_queries(30):
        client.get(filled.get_absolute_url())


def test_hostile_titles_are_text(client, filled, analyst):
    client.force_login(analyst)
    for address in (filled.get_absolute_url(), *(tab(filled, name) for name in TABS), tab(filled, "search") + "?q=board"):
        assert "<script>alert(1)</script>" not in client.get(address).content.decode(), address


def test_entities_by_type_and_by_part_of_a_name(client, filled, analyst):
    client.force_login(analyst)
    people = client.get(tab(filled, "entities"), {"type": "person"}).content.decode()
    assert "Anna Keller" in people
    assert "a.keller@meridian.com" not in people
    found = client.get(tab(filled, "entities"), {"q": "KELLER@"}).content.decode()
    assert "a.keller@meridian.com" in found
    assert client.get(tab(filled, "entities"), {"type": "nonsense", "q": "\x00"}).status_code == 200


def test_an_entity_is_shown_in_its_context(client, filled, analyst):
    client.force_login(analyst)
    page = client.get(Entity.objects.get(type="email").get_absolute_url()).content.decode()
    assert "<mark>a.keller@meridian.com</mark> about the board" in page
    assert "Keller Anna wrote to " in page


def test_a_document_marks_what_it_names(client, filled, analyst):
    client.force_login(analyst)
    document = filled.documents.get(title="The meeting")
    page = client.get(document.get_absolute_url()).content.decode()
    mention = document.mentions.get(entity__type="email")
    assert f'id="m{mention.start}"' in page
    assert ">a.keller@meridian.com</a>" in page


def test_a_pair_is_decided_undone_and_kept(client, filled, analyst):
    client.force_login(analyst)
    pair = filled.duplicate_pairs.filter(kind="entity").first()
    address = reverse("decide-pair", args=[pair.pk])
    back = tab(filled, "duplicates")
    assert client.post(address, {"decision": "different", "next": back})["Location"] == back
    pair.refresh_from_db()
    assert (pair.decision, pair.decided_by) == ("different", analyst)
    run_here("duplicate_detection", filled, analyst)
    assert DuplicatePair.objects.get(pk=pair.pk).decision == "different"
    assert "decided by ortega" in client.get(back, {"show": "different"}).content.decode()
    client.post(address, {"decision": "", "next": "https://evil.example/"})
    pair.refresh_from_db()
    assert (pair.decision, pair.decided_by) == ("", None)
    elsewhere = client.post(address, {"decision": "same", "next": "//evil.example/"})
    assert elsewhere["Location"].startswith("/subjects/")
    assert client.post(address, {"decision": "perhaps"}).status_code == 302
    assert DuplicatePair.objects.get(pk=pair.pk).decision == "same"


# -- search -------------------------------------------------------------------------------------------------------


def titles(subject, text):
    return [hit.document.title for hit in search(subject.pk, text)]


def test_words_phrases_and_beginnings(subject, analyst):
    add_document(subject, "The board of directors met in Zürich.", title="One")
    add_document(subject, "Directors of other companies; the board was away.", title="Two")
    assert set(titles(subject, "board directors")) == {"One", "Two"}
    assert titles(subject, '"board of directors"') == ["One"]
    assert titles(subject, "compan") == ["Two"], "the last word may be the beginning of one"
    assert titles(subject, "nowhere board") == []
    assert titles(subject, "one") == ["One"], "titles count"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        '"',
        "AND",
        "NOT OR",
        "a* (b",
        "x:y",
        "'; DROP TABLE x; --",
        "\x00",
        "^",
        "NEAR(a b)",
        "-board",
        "*" * 400,
        "a " * 300,
        "'",
        "\\",
        "&|!",
        "<->",
    ],
)
def test_odd_searches_find_nothing_or_something_but_never_fail(subject, client, analyst, text):
    add_document(subject, "The board.", title="One")
    search(subject.pk, text)
    client.force_login(analyst)
    assert client.get(tab(subject, "search"), {"q": text}).status_code == 200


def test_the_index_follows_every_change_and_other_subjects_stay_apart(subject, analyst):
    document = add_document(subject, "The first text.", title="One")
    elsewhere = Subject.objects.create(name="Other", created_by=analyst)
    add_document(elsewhere, "The first text.", title="Theirs")
    assert titles(subject, "first") == ["One"]
    Document.objects.filter(pk=document.pk).update(text="The second text.")
    assert (titles(subject, "first"), titles(subject, "second")) == ([], ["One"])
    Document.objects.filter(pk=document.pk).update(is_current=False)
    assert titles(subject, "second") == []
    document.delete()
    assert "<mark>first</mark> text" in search(elsewhere.pk, "first")[0].snippet


def test_what_is_found_is_escaped(subject):
    add_document(subject, "A <b>bold</b> board <img src=x onerror=alert(1)>", title="One")
    [hit] = search(subject.pk, "board")
    assert "<mark>board</mark> &lt;img src=x onerror=alert" in hit.snippet
    assert "<b>" not in hit.snippet  # PostgreSQL leaves tags out, SQLite shows them as text


def test_search_over_the_api(client, filled, analyst):
    client.force_login(analyst)
    found = client.get(f"/api/subjects/{filled.pk}/search", {"q": "board directors"}).json()
    assert len(found) == 2
    assert "<mark>" in found[0]["snippet"]
    assert client.get(f"/api/subjects/{filled.pk}/search").status_code == 400


# -- uploads --------------------------------------------------------------------------------------------------------


def test_files_are_stored_as_they_are_and_read_by_a_job(client, subject, analyst):
    client.force_login(analyst)
    assert client.post(tab(subject, "upload"), {}).status_code == 422
    files = [SimpleUploadedFile("../../note.txt", b"Anna Keller"), SimpleUploadedFile("page.html", b"<p>x</p>")]
    answer = client.post(tab(subject, "upload"), {"files": files, "tables": "on"})
    job = Job.objects.get()
    assert answer["Location"] == job.get_absolute_url()
    assert (job.job_type, job.name, job.parameters["tables"]) == ("file_import", "Read 2 files", True)
    upload = Upload.objects.get(name="note.txt")
    assert upload.file.name == f"uploads/{upload.pk}"
    assert upload.sha256 == hashlib.sha256(b"Anna Keller").hexdigest()


def test_uploads_of_another_subject_are_not_read(subject, analyst):
    elsewhere = Subject.objects.create(name="Other", created_by=User.objects.create_user("their"))
    upload = Upload(subject=elsewhere, name="a.txt", size=1, sha256="", created_by=elsewhere.created_by)
    upload.file.save("a.txt", SimpleUploadedFile("a.txt", b"secret"), save=False)
    upload.save()
    for pk in (upload.pk, "01a211b9-b196-7ecd-9839-44f98a8fa580"):
        with pytest.raises(InvalidParameters, match=f"no upload with the id {pk}"):
            JobManager().create_job("file_import", parameters={"uploads": [str(pk)]}, created_by=analyst, subject_id=subject.pk)


def test_the_admin_shows_what_was_found_and_changes_nothing(client, filled, admin_user):
    client.force_login(admin_user)
    for name in ("entity", "timelineevent", "duplicatepair", "upload", "document", "subject"):
        assert client.get(f"/admin/osint/{name}/").status_code == 200, name
    assert client.post(f"/admin/osint/entity/{filled.entities.first().pk}/delete/", {"post": "yes"}).status_code == 403
