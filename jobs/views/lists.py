"""The job list: filters, pages, CSV, saved views, and actions on many."""

import csv
import itertools
from collections.abc import Iterator
from typing import Any

from django.contrib import messages
from django.contrib.auth import get_user_model
from django.contrib.auth.decorators import login_required
from django.db.models import Exists, OuterRef, QuerySet
from django.http import HttpRequest, HttpResponse, QueryDict, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from jobs import bulk, conf, items, registry, words
from jobs.filters import PERIODS, STATES, JobFilter, filtered, state_query
from jobs.forms import BulkForm, SavedViewForm, priorities_for
from jobs.models import Job, SavedView
from jobs.paging import COUNTED, counted, keyset_page
from jobs.presentation import decorate
from jobs.queries import JobQuerySet, few_subjects, subjects_of
from jobs.search import HITS_MAX
from jobs.states import Priority
from jobs.views.scope import PAGE_SIZE, Echo, offer_undo, subject_of, visible_jobs, without

# What a row may show beside its state and its job; the ones that it shows unless other ones are chosen.
COLUMNS = {
    "type": "Type",
    "priority": "Priority",
    "progress": "Progress",
    "time": "Time",
    "by": "By",
    "created": "Created",
    "started": "Started",
    "ended": "Ended",
    "worker": "Worker",
}
UNDO_MAX = 500  # jobs; a form with more fields is not taken
USUAL_COLUMNS = ["progress", "time", "by", "created"]


def chosen_columns(request: HttpRequest) -> list[str]:
    """As the address says, else as they were chosen last; unknown ones are left out."""
    kept = [name for name in request.session.get("columns", USUAL_COLUMNS) if name in COLUMNS]
    if "columns" not in request.GET:
        return kept
    asked = [name for name in COLUMNS if name in request.GET.getlist("columns")]
    if asked != kept and "X-Regions" not in request.headers:  # a tab that only draws itself again chooses nothing
        request.session["columns"] = asked
    return asked


@login_required
@require_GET
def job_list(request: HttpRequest) -> HttpResponse:
    visible = visible_jobs(request)
    filters, problems = filtered(request.GET, visible, request)
    where = {name: request.GET.get(name, "") for name in ("after", "before")}
    page = keyset_page(filters.qs, filters.order, PAGE_SIZE, among=visible, **where)
    if not page.rows and any(where.values()):
        return redirect(f"{reverse('job-list')}?{without(request, 'after', 'before')}")
    decorate(page.rows)
    count = counted(filters.qs)
    return render(
        request,
        "jobs/list.html",
        {
            "page": page,
            "count": count,
            "count_said": words.up_to(count, COUNTED),
            "newest_only": HITS_MAX if filters.has_more else None,
            "views": list(SavedView.objects.filter(user_id=str(request.user.pk))),
            "problems": problems,
            "chips": state_chips(request, visible),
            "filters": filters,
            "types": registry.choices(),
            "priorities": [(p.name, p.label) for p in Priority],
            "periods": PERIODS.items(),
            "creators": creators_of(request),
            "given": request.GET,
            "is_filtered": any(v for k, v in request.GET.items() if k in JobFilter.base_filters and k != "sort"),
            "subject": subject_of(request, request.GET.get("subject")),
            "query": without(request, "after", "before"),
            "columns": COLUMNS.items(),
            "shown_columns": chosen_columns(request) or ["none"],
            "filters_given": [(name, value) for name, values in request.GET.lists() if name != "columns" for value in values],
        },
    )  # fmt: skip


@login_required
@require_GET
def job_list_csv(request: HttpRequest) -> StreamingHttpResponse:
    """The jobs of the list, with its filters and order, as CSV; up to `bulk_max` times ten of them."""
    filters, _ = filtered(request.GET, visible_jobs(request), request)
    writer = csv.writer(Echo())
    head = ["id", "name", "type", "status", "state", "says", "priority", "by", "created", "started", "ended", "done", "of", "problems"]
    response = StreamingHttpResponse(
        itertools.chain([writer.writerow(head)], map(writer.writerow, csv_rows(filters.qs[: 10 * conf.get("bulk_max")]))),
        content_type="text/csv; charset=utf-8",
    )
    response["Content-Disposition"] = 'attachment; filename="jobs.csv"'
    return response


def csv_rows(jobs: JobQuerySet) -> Iterator[list[Any]]:
    for batch in items.batches(jobs.iterator(chunk_size=500), 500):
        for job in decorate(batch):
            by = job.created_by.get_username() if job.created_by else "system"
            moments = [moment.isoformat() if moment else "" for moment in (job.created_at, job.started_at, job.completed_at)]
            texts = [words.csv_cell(text) for text in (job.name, job.type_label, job.status, job.badge.label, job.sentence)]
            done = [job.completed_steps, "" if job.total_steps is None else job.total_steps, job.problem_count]
            yield [job.pk, *texts, job.get_priority_display(), words.csv_cell(by), *moments, *done]


@login_required
@require_POST
def view_save(request: HttpRequest) -> HttpResponse:
    """Keep the filters of the list under a name; the same name again replaces them."""
    form = SavedViewForm(request.POST)
    if not form.is_valid():
        messages.error(request, f"{' '.join(str(text) for texts in form.errors.values() for text in texts)} Nothing was saved.")
        return redirect(f"{reverse('job-list')}?{request.POST.get('query', '')}")
    said = form.cleaned_data
    SavedView.objects.update_or_create(user_id=str(request.user.pk), name=said["name"], defaults={"query": said["query"]})
    messages.success(request, f"“{said['name']}” is among your views.")
    return redirect(f"{reverse('job-list')}?{said['query']}")


@login_required
@require_POST
def view_delete(request: HttpRequest, view_id: int) -> HttpResponse:
    view = get_object_or_404(SavedView.objects.filter(user_id=str(request.user.pk)), pk=view_id)
    view.delete()
    messages.success(request, f"“{view.name}” is no longer among your views.")
    offer_undo(request, reverse("view-save"), name=view.name, query=view.query)
    return redirect("job-list")


def creators_of(request: HttpRequest) -> list[str]:
    """Of the jobs that a person may see: everybody who started one, or those who did on the person's subjects."""
    user: Any = request.user
    people = get_user_model().objects.order_by("username")
    if user.has_perm("jobs.view_all_jobs"):
        people = people.filter(Exists(Job.objects.filter(created_by=OuterRef("pk")).order_by()))
    else:
        subjects, few = subjects_of(user), few_subjects(request)
        named: Any = few if few is not None or subjects is None else subjects.values("pk")
        shared = Job.objects.filter(subject_id__in=named or [])
        people = people.filter(pk__in={user.pk, *shared.order_by().values_list("created_by_id", flat=True).distinct()})
    return list(people.values_list("username", flat=True)[:100])


def state_chips(request: HttpRequest, visible: QuerySet) -> list[dict[str, Any]]:
    """The states as filters with their counts, each a link that switches it on or off."""
    chosen = set(request.GET.getlist("state"))
    counts = {name: counted(visible.filter(state_query(name))) for name in STATES}
    chips = []
    for name, label in STATES.items():
        query = request.GET.copy()
        for name_of_place in ("after", "before"):
            query.pop(name_of_place, None)
        query.setlist("state", sorted(chosen ^ {name}))
        chips.append(
            {"name": name, "label": label, "count": words.up_to(counts[name], COUNTED), "on": name in chosen, "query": query.urlencode()}
        )
    return chips


@login_required
@require_POST
def job_bulk(request: HttpRequest) -> HttpResponse:
    """First how many jobs an action is for, then, confirmed, what came of each."""
    form = BulkForm(request.POST)
    if not form.is_valid():
        messages.error(request, "This action is not known. Nothing was changed.")
        return redirect("job-list")
    said = form.cleaned_data
    back = f"{reverse('job-list')}?{said['query']}"
    jobs, problem = chosen_jobs(request, said)
    if problem:
        messages.error(request, f"{problem} Nothing was changed.")
        return redirect(back)
    most = conf.get("bulk_max")
    action = bulk.ACTIONS[said["action"]]
    priorities = priorities_for(request.user)
    context = {
        "name": said["action"],
        "action": action,
        "given": said,
        "back": back,
        "most": most,
        "priorities": priorities,
        "normal": Priority.NORMAL,
    }
    if not said["confirmed"]:
        shown = decorate(list(jobs[:20]))
        context |= {"count": counted(jobs), "jobs": shown, "ids": [] if said["everything"] else request.POST.getlist("job")}
        return render(request, "jobs/bulk.html", context)
    taken = list(jobs[:most])
    outcomes = bulk.act(said["action"], taken, by=request.user, reason=said["reason"], priority=said["priority"])
    offer_bulk_undo(request, said["action"], [outcome.job for outcome in outcomes if outcome.done])
    done = sum(outcome.done for outcome in outcomes)
    return render(request, "jobs/bulk.html", {**context, "outcomes": outcomes, "done": done, "refused": len(outcomes) - done})


def offer_bulk_undo(request: HttpRequest, action: str, done: list[Job]) -> None:
    """For what one action on the same jobs takes back: keeping, letting go, and a new priority where all had the same one."""
    priorities = {job.priority for job in done}
    back = {"keep": {"action": "let_go"}, "let_go": {"action": "keep"}}.get(action)
    if action == "priority" and len(priorities) == 1:
        back = {"action": "priority", "priority": str(priorities.pop())}
    if back and 0 < len(done) <= UNDO_MAX:
        offer_undo(request, reverse("job-bulk"), job=[str(job.pk) for job in done], confirmed="1", **back)


def chosen_jobs(request: HttpRequest, said: dict[str, Any]) -> tuple[JobQuerySet, str]:
    """The jobs that a bulk action is for, or why there are none."""
    visible = visible_jobs(request).order_by("-created_at", "-id")
    if said["everything"]:
        filters, problems = filtered(QueryDict(said["query"]), visible, request)
        if problems:
            return visible.none(), problems[0]
        jobs = filters.qs.order_by("-created_at", "-id")
    else:
        try:
            jobs = visible.filter(pk__in=bulk.ids_of(request.POST.getlist("job")))
        except ValueError:
            return visible.none(), "One of the chosen jobs has no proper id."
    if not jobs.exists():
        return visible.none(), "No job matches." if said["everything"] else "No job was chosen."
    return jobs, ""
