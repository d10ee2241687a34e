"""The options that every new job has, beside the parameters of its type."""

from typing import Any

from django import forms

from jobs.bulk import ACTIONS
from jobs.language import told
from jobs.models import MailWish
from jobs.queries import subjects_of
from jobs.states import Priority


class JobOptionsForm(forms.Form):
    """Priority and subject, as far as `user` may choose them."""

    priority = forms.TypedChoiceField(coerce=int, initial=int(Priority.NORMAL), choices=())
    subject: forms.ModelChoiceField = forms.ModelChoiceField(
        queryset=None, required=False, help_text="Its members see the job and its results."
    )

    def __init__(self, *args: Any, user: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        fields: dict[str, Any] = self.fields
        fields["priority"].choices = priorities_for(user)
        subjects = subjects_of(user)
        if subjects is None:
            del self.fields["subject"]
        else:
            fields["subject"].queryset = subjects
            fields["subject"].empty_label = told("No subject")


def priorities_for(user: Any) -> list[tuple[int, str]]:
    """URGENT goes before everybody's work, so it needs a permission."""
    may_urge = user.has_perm("jobs.start_urgent_jobs")
    return [(int(p), told(p.label)) for p in Priority if p != Priority.URGENT or may_urge]


class RetryForm(forms.Form):
    """Limits that a retry may change; empty ones stay."""

    memory_limit_mb = forms.IntegerField(required=False)
    time_limit_s = forms.IntegerField(required=False)
    cpu_limit_s = forms.IntegerField(required=False)


class BulkForm(forms.Form):
    """An action on chosen jobs, or on all that a filter matches."""

    action = forms.ChoiceField(choices=[(name, action.label) for name, action in ACTIONS.items()])
    priority = forms.TypedChoiceField(coerce=int, choices=Priority.choices, required=False, empty_value=None)
    query = forms.CharField(required=False, max_length=4000)
    everything = forms.BooleanField(required=False)
    confirmed = forms.BooleanField(required=False)
    reason = forms.CharField(required=False, max_length=300, strip=True)


class CancelForm(forms.Form):
    reason = forms.CharField(required=False, max_length=300, strip=True)


class MailForm(forms.Form):
    """Of what a person gets mail, with a field for each subject that they may see."""

    mail = forms.ChoiceField(choices=MailWish.Mail.choices, initial=MailWish.Mail.FAILURES, label="Mail")
    quiet_from = forms.TimeField(required=False, label="No mail from", widget=forms.TimeInput(attrs={"type": "time"}))
    quiet_until = forms.TimeField(required=False, label="Until", widget=forms.TimeInput(attrs={"type": "time"}))

    def __init__(self, *args: Any, subjects: Any = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        mails = [(value, told(label)) for value, label in MailWish.Mail.choices]
        fields: dict[str, Any] = self.fields
        fields["mail"].choices = mails
        self.subject_fields = {f"subject_{subject.pk}": subject for subject in subjects}
        for name, subject in self.subject_fields.items():
            choices = [("", told("As above")), *mails]
            self.fields[name] = forms.ChoiceField(choices=choices, required=False, label=str(subject))

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        if not self.errors and (cleaned.get("quiet_from") is None) != (cleaned.get("quiet_until") is None):
            self.add_error("quiet_from", "Quiet hours need a beginning and an end; leave both empty for none.")
        return cleaned


class SavedViewForm(forms.Form):
    name = forms.CharField(max_length=60, strip=True, error_messages={"required": "A view needs a name."})
    query = forms.CharField(required=False, max_length=2000)


class AcknowledgeForm(forms.Form):
    note = forms.CharField(required=False, max_length=300, strip=True)
    again = forms.BooleanField(required=False)
