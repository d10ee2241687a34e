"""What people are told, and how they want to be told."""

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import get_language

from jobs.forms import MailForm
from jobs.language import SOURCE
from jobs.mailing import save_wishes
from jobs.models import Job, MailWish, Notification
from jobs.notifications import mark_read
from jobs.queries import subjects_of

SUBJECTS_SHOWN = 100


@login_required
def notifications(request: HttpRequest) -> HttpResponse:
    mine = Notification.objects.filter(user_id=str(request.user.pk))
    if request.method == "POST":
        mark_read(request.user)
        return redirect("notifications")
    rows = list(mine.select_related("job", "group")[:100])
    return render(request, "jobs/notifications.html", {"rows": rows})


@login_required
def mail_settings(request: HttpRequest) -> HttpResponse:
    """Of which ends the viewer gets mail, and when not."""
    subjects = list((subjects_of(request.user) or Job.objects.none())[:SUBJECTS_SHOWN])
    wishes = {wish.subject_id: wish for wish in MailWish.objects.filter(user_id=str(request.user.pk))}
    general = wishes.get(None) or MailWish()
    initial: dict[str, Any] = {name: getattr(general, name) for name in ("mail", "quiet_from", "quiet_until")}
    initial |= {f"subject_{subject_id}": wish.mail for subject_id, wish in wishes.items() if subject_id}
    form = MailForm(request.POST or None, initial=initial, subjects=subjects)
    if request.method == "POST" and form.is_valid():
        said = form.cleaned_data
        asked_for = {name: said[name] for name in ("mail", "quiet_from", "quiet_until")}
        by_subject = {subject.pk: said[name] for name, subject in form.subject_fields.items()}
        here = {"zone": timezone.get_current_timezone_name(), "language": get_language() or SOURCE}
        save_wishes(request.user, asked_for | here, by_subject)
        messages.success(request, "Your wishes about mail are saved.")
        return redirect("mail-settings")
    context = {"form": form, "zone": timezone.get_current_timezone_name(), "address": getattr(request.user, "email", "")}
    return render(request, "jobs/mail_settings.html", context, status=422 if form.errors else 200)
