"""The pages about subjects and what was found about them."""

import uuid

from django import forms
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.db import DatabaseError, connection
from django.db.models import Count
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET

from jobs.models import Job
from jobs.presentation import decorate
from osint.models import Document, Subject


class SubjectForm(forms.ModelForm):
    class Meta:
        model = Subject
        fields = ("name", "notes")
        widgets = {"notes": forms.Textarea(attrs={"rows": 3})}


@login_required
def subject_list(request: HttpRequest) -> HttpResponse:
    form = SubjectForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        form.instance.created_by = request.user
        return redirect(form.save())
    subjects = Subject.objects.visible_to(request.user).annotate(document_count=Count("documents")).order_by("name", "id")
    page = Paginator(subjects, 50).get_page(request.GET.get("page"))
    return render(request, "osint/subject_list.html", {"page": page, "form": form}, status=422 if form.errors else 200)


@login_required
@require_GET
def subject_detail(request: HttpRequest, subject_id: uuid.UUID) -> HttpResponse:
    subject = get_object_or_404(Subject.objects.visible_to(request.user), pk=subject_id)
    jobs = Job.objects.visible_to(request.user).filter(subject_id=subject.pk).select_related("created_by")[:20]
    documents = Paginator(subject.documents.defer("text", "links", "headers"), 50).get_page(request.GET.get("page"))
    return render(
        request,
        "osint/subject_detail.html",
        {"subject": subject, "jobs": decorate(list(jobs)), "documents": documents, "members": subject.members.all()},
    )


@login_required
@require_GET
def document_detail(request: HttpRequest, document_id: uuid.UUID) -> HttpResponse:
    visible = Document.objects.visible_to(request.user).select_related("job", "subject", "warc")
    return render(request, "osint/document_detail.html", {"document": get_object_or_404(visible, pk=document_id)})


@require_GET
def health(request: HttpRequest) -> JsonResponse:
    """Up or down, and nothing else, for whoever asks."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        return JsonResponse({"status": "down"}, status=503)
    return JsonResponse({"status": "up"})
