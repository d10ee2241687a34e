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
from jobs.failures import with_failure
from jobs.filters import PERIODS, STATES, JobFilter, filtered, state_query
from jobs.forms import BulkForm, SavedViewForm, priorities_for
from jobs.models import FailureGroup, Job, JobGroup, SavedView
from jobs.paging import COUNTED, counted, keyset_page
from jobs.presentation import decorate
from jobs.queries import JobQuerySet, few_subjects, subjects_of
from jobs.search import HITS_MAX
from jobs.states import Priority
from jobs.views.scope import PAGE_SIZE, Echo, is_redraw, offer_undo, subject_of, visible_jobs, without
from jobs.ways import with_ways

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
# what each of them is in a CSV file
CSV_COLUMNS = {name: [name] for name in COLUMNS} | {"progress": ["done", "of", "problems"], "time": ["seconds"]}
UNDO_MAX = 500  # jobs; a form with more fields is not taken
SORT_LABELS = {
    "-created": "Newest first",
    "created": "Oldest first",
    "-ended": "Last ended first",
    "ended": "First ended first",
    "-priority": "Highest priority first",
    "priority": "Lowest priority first",
    "name": "By name",
    "-name": "By name, from the end",
}
SHOWN_ABOVE = ("type", "priority", "by", "since", "sort", "q")  # each by a field of its own
MANY = ("type", "priority")  # whose field shows one
USUAL_COLUMNS = ["progress", "time", "by", "created"]


def chosen_columns(request: HttpRequest) -> tuple[list[str], list[str]]:
    """(as the address says, else as they were chosen last; those that there are not)."""
    kept = [name for name in request.session.get("columns", USUAL_COLUMNS) if name in COLUMNS]
    given = request.GET.getlist("columns")
    asked, unknown = [name for name in COLUMNS if name in given], [name for name in given if name and name not in COLUMNS]
    if not given or (unknown and not asked):
        return kept, unknown
    if asked != kept and not is_redraw(request):  # a tab that only draws itself again chooses nothing
        request.session["columns"] = asked
    return asked, unknown


@login_required
@require_GET
def job_list(request: HttpRequest) -> HttpResponse:
    visible = visible_jobs(request)
    filters, problems = filtered(request.GET, visible, request)
    where = {name: request.GET.get(name, "") for name in ("after", "before")}
    page = keyset_page(filters.qs, filters.order, PAGE_SIZE, among=visible, **where)
    if not page.rows and any(where.values()) and not is_redraw(request):
        return redirect(f"{reverse('job-list')}?{without(request, 'after', 'before')}")
    with_ways(decorate(page.rows), request.user)
    count = counted(filters.qs)
    columns, unknown = chosen_columns(request)
    problems += [f"Columns: there is none called “{name[:40]}”." for name in unknown]
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
            "limits": limits(request, filters),
            "sorts": SORT_LABELS.items(),
            "query": without(request, "after", "before"),
            "columns": COLUMNS.items(),
            "shown_columns": columns or ["none"],
            "columns_given": request.GET.getlist("columns"),
            "filters_given": [(name, value) for name, values in request.GET.lists() if name != "columns" for value in values if value],
        },
    )  # fmt: skip


def limits(request: HttpRequest, filters: JobFilter) -> list[dict[str, str]]:
    """What of the address narrows the list and has no field of its own above it: each with a link that leaves it out."""
    found = []
    for name, values in request.GET.lists():
        given = [value for value in values if value]
        unseen = name not in (*SHOWN_ABOVE, "state") or (name in MANY and len(given) > 1)
        if name in JobFilter.base_filters and name in filters.data and unseen:
            found += [(name, value) for value in given]
    shown = []
    for name, value in found:
        query = query_with(request, name, [other for other in request.GET.getlist(name) if other != value])
        label, text = JobFilter.base_filters[name].label, said_of(name, value, request)
        shown.append({"name": name, "value": value, "label": label, "text": text, "query": query})
    return shown


def query_with(request: HttpRequest, name: str, values: list[str]) -> str:
    """The query of this page with other values for a name, from its first rows on."""
    query = request.GET.copy()
    for place in ("after", "before"):
        query.pop(place, None)
    query.setlist(name, values)
    return query.urlencode()


def said_of(name: str, value: str, request: HttpRequest) -> str:
    """A value of a filter as people know it; as it stands where they may not see what it is the id of."""
    choices: Any = JobFilter.base_filters[name].extra.get("choices", ())
    known = dict(choices() if callable(choices) else choices)
    if value in known:
        return str(known[value])
    found: Any = None
    if name == "subject":
        found = subject_of(request, value)
    elif name == "group":
        found = JobGroup.objects.visible_to(request.user).filter(pk=value).first()
    elif name in ("failure", "open_failure") and visible_jobs(request).filter(with_failure(value)).exists():
        found = FailureGroup.objects.filter(pk=value).first()
    return str(found or value)[:120]


@login_required
@require_GET
def job_list_csv(request: HttpRequest) -> StreamingHttpResponse:
    """The jobs of the list, with its filters, order and columns, as CSV; up to `bulk_max` times ten of them."""
    filters, _ = filtered(request.GET, visible_jobs(request), request)
    writer = csv.writer(Echo())
    columns = chosen_columns(request)[0]
    head = ["id", "name", "status", "state", "says", *(name for column in columns for name in CSV_COLUMNS[column])]
    rows = csv_rows(filters.qs[: 10 * conf.get("bulk_max")], columns)
    response = StreamingHttpResponse(
        itertools.chain([writer.writerow(head)], map(writer.writerow, rows)),
        content_type="text/csv; charset=utf-8",
    )
    response["Content-Disposition"] = 'attachment; filename="jobs.csv"'
    return response


def csv_rows(jobs: JobQuerySet, columns: list[str]) -> Iterator[list[Any]]:
    for batch in items.batches(jobs.iterator(chunk_size=500), 500):
        for job in decorate(batch):
            texts = [words.csv_cell(text) for text in (job.name, job.status, job.badge.label, job.sentence)]
            cells = csv_cells(job)
            yield [job.pk, *texts, *(cells[name] for column in columns for name in CSV_COLUMNS[column])]


def csv_cells(job: Any) -> dict[str, Any]:
    """What each of CSV_COLUMNS says of a job; empty where nothing is known."""
    moments = {"created": job.created_at, "started": job.started_at, "ended": job.completed_at}
    return {
        "type": words.csv_cell(job.type_label),
        "priority": job.get_priority_display(),
        "done": job.completed_steps,
        "of": "" if job.total_steps is None else job.total_steps,
        "problems": job.problem_count,
        "seconds": "" if job.elapsed is None else round(job.elapsed, 3),
        "by": words.csv_cell(job.created_by.get_username() if job.created_by else "system"),
        "worker": words.csv_cell(job.worker_id),
        **{name: moment.isoformat() if moment else "" for name, moment in moments.items()},
    }


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
        query = query_with(request, "state", sorted(chosen ^ {name}))
        chips.append({"name": name, "label": label, "count": words.up_to(counts[name], COUNTED), "on": name in chosen, "query": query})
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
