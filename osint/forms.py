"""Forms of the pages about subjects."""

import hashlib
from typing import Any

from django import forms
from django.core.files.uploadedfile import UploadedFile

from jobs.forms import priorities_for
from jobs.states import Priority
from osint.job_types.file_import import TAKEN
from osint.job_types.web_scraping import WebScrapingForm
from osint.models import DuplicatePair, Subject, Upload

FILES_MAX = 50
FILE_BYTES_MAX = 200_000_000


class SubjectForm(forms.ModelForm):
    class Meta:
        model = Subject
        fields = ("name", "notes")
        widgets = {"notes": forms.Textarea(attrs={"rows": 3})}


class InvestigateForm(WebScrapingForm):
    """What is scraped first, if anything, and what the report is called."""

    title = forms.CharField(
        label="Title of the report", required=False, max_length=200, help_text="The name of the subject, if you leave it empty."
    )
    priority = forms.TypedChoiceField(coerce=int, initial=int(Priority.NORMAL), choices=())
    field_order = (
        "urls",
        "skip_refused",
        "sitemap",
        "depth",
        "pages_max",
        "hosts",
        "discover",
        "recheck",
        "title",
        "priority",
        "delay_s",
        "hosts_at_once",
    )

    def __init__(self, *args: Any, user: Any, has_documents: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        fields: dict[str, Any] = self.fields
        fields["priority"].choices = priorities_for(user)
        self.has_documents = has_documents

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        if self.has_documents and self.has_error("urls", "nothing"):
            del self.errors["urls"]  # nothing to scrape: the documents that are there are investigated
            cleaned["urls"] = []
        return cleaned

    @property
    def scrape(self) -> dict[str, Any] | None:
        """The parameters of web_scraping, or None when nothing is to be scraped."""
        chosen = {name: self.cleaned_data[name] for name in WebScrapingForm.base_fields}
        return chosen if chosen["urls"] or chosen["sitemap"] else None


class ManyFiles(forms.ClearableFileInput):
    allow_multiple_selected = True


class FilesField(forms.FileField):
    widget = ManyFiles

    def clean(self, data: Any, initial: Any = None) -> list[UploadedFile]:
        given = data if isinstance(data, list | tuple) else [data] if data else []
        if not given:
            raise forms.ValidationError("Choose at least one file.")
        if len(given) > FILES_MAX:
            raise forms.ValidationError(f"{len(given)} files are too many at once: up to {FILES_MAX}, or a ZIP of them.")
        for file in given:
            super().clean(file, initial)
            if file.size > FILE_BYTES_MAX:
                raise forms.ValidationError(f"{file.name} has {file.size:,} bytes; up to {FILE_BYTES_MAX:,} are taken.")
        return list(given)


class UploadForm(forms.Form):
    files: Any = FilesField(label="Files", allow_empty_file=False, help_text=f"{TAKEN}. They are kept as they are, with their SHA-256.")
    tables = forms.BooleanField(
        label="The rows of CSV files are records of people or companies",
        required=False,
        help_text="They can then be compared to find duplicates.",
    )

    def store(self, subject: Subject, user: Any) -> list[Upload]:
        uploads = []
        for file in self.cleaned_data["files"]:
            digest = hashlib.sha256()
            for chunk in file.chunks():
                digest.update(chunk)
            upload = Upload(subject=subject, name=file.name[:200], size=file.size, sha256=digest.hexdigest(), created_by=user)
            file.seek(0)
            upload.file.save(upload.name, file, save=False)
            upload.save(force_insert=True)
            uploads.append(upload)
        return uploads


class DecisionForm(forms.Form):
    decision = forms.ChoiceField(choices=DuplicatePair.Decision.choices, required=False)
