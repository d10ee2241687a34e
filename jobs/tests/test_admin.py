"""The admin shows all and falsifies nothing."""

import re

import pytest
from django.contrib.auth.models import Permission, User

from jobs.manager import JobManager
from jobs.states import Status
from jobs.tests.fixtures import reload

MODELS = ("job", "jobattempt", "joblog", "artifact", "notification", "workerprocess")


@pytest.fixture
def admin(client, admin_user):
    client.force_login(admin_user)
    return client


@pytest.mark.parametrize("model", MODELS)
def test_lists_open_and_nothing_can_be_added(admin, running_job, model):
    assert admin.get(f"/admin/jobs/{model}/").status_code == 200
    assert admin.get(f"/admin/jobs/{model}/add/").status_code == 403


@pytest.mark.parametrize("model", ["subject", "document"])
def test_lists_of_investigations_open(admin, model):
    assert admin.get(f"/admin/osint/{model}/").status_code == 200


def test_jobs_are_named_as_on_the_pages(admin, job):
    JobManager().hold([job.pk], "Waits for memory")
    text = admin.get("/admin/jobs/job/").content.decode()
    for name, shown in (("state", "Held"), ("type_shown", "Sample steps")):
        assert re.search(rf"field-{name}[^>]*>\s*{shown}\s*<", text)


def test_a_job_cannot_be_edited_or_deleted_by_hand(admin, running_job):
    where = f"/admin/jobs/job/{running_job.pk}/"
    assert admin.get(where + "change/").status_code == 200
    assert admin.post(where + "change/", {"status": "COMPLETED"}).status_code == 403
    assert admin.post(where + "delete/", {"post": "yes"}).status_code == 403
    assert reload(running_job).status == Status.RUNNING


def act(client, action, *jobs):
    data = {"action": action, "_selected_action": [str(job.pk) for job in jobs]}
    return client.post("/admin/jobs/job/", data, follow=True).content.decode()


def test_actions_go_through_the_manager(admin, job, admin_user):
    failed = JobManager().create_job("sample_steps")
    JobManager().start([failed.pk], worker_id="a", host="a")
    JobManager().mark_failed(failed.pk, "boom", attempt=1)
    assert "1 put back in the queue. 1 were not failed" in act(admin, "retry_jobs", job, failed)
    assert reload(failed).status == Status.PENDING
    assert "1 cancelled." in act(admin, "cancel_jobs", job)
    assert (reload(job).status, reload(job).cancelled_by) == (Status.CANCELLED, "admin")


def test_actions_need_the_right_to_change_jobs(client, job):
    viewer = User.objects.create_user("viewer", password="pw", is_staff=True)
    viewer.user_permissions.add(Permission.objects.get(codename="view_job"))
    client.force_login(viewer)
    act(client, "cancel_jobs", job)
    assert reload(job).status == Status.PENDING


def test_groups_are_cancelled_and_taken_up_as_a_whole(admin, admin_user):
    group = JobManager().create_group("Both", created_by=admin_user)
    first = JobManager().create_job("sample_steps", parameters={"total": 1}, group=group)
    second = JobManager().create_job("sample_steps", parameters={"total": 1}, group=group, depends_on=[first.pk])

    def act_on_groups(action):
        return admin.post("/admin/jobs/jobgroup/", {"action": action, "_selected_action": [str(group.pk)]}, follow=True).content.decode()

    assert "not over yet" in act_on_groups("retry_groups")
    assert "2 of their jobs are cancelled." in act_on_groups("cancel_groups")
    assert (reload(first).status, reload(second).cancel_reason) == (Status.CANCELLED, "by an administrator")
    assert "2 of its jobs are taken up again." in act_on_groups("retry_groups")
