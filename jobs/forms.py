"""The options that every new job has, beside the parameters of its type."""

from typing import Any

from django import forms

from jobs.bulk import ACTIONS
from jobs.queries import subjects_of
from jobs.states import Priority


class JobOptionsForm(forms.Form):
    """Priority and subject, as far as `user` may choose them."""

    priority = forms.TypedChoiceField(coerce=int, initial=int(Priority.NORMAL), choices=())
    subject: forms.ModelChoiceField = forms.ModelChoiceField(
        queryset=None, required=False, empty_label="No subject", help_text="Its members see the job and its results."
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


def priorities_for(user: Any) -> list[tuple[int, str]]:
    """URGENT goes before everybody's work, so it needs a permission."""
    may_urge = user.has_perm("jobs.start_urgent_jobs")
    return [(int(p), str(p.label)) for p in Priority if p != Priority.URGENT or may_urge]


class RetryForm(forms.Form):
    """Limits that a retry may change; empty ones stay."""

    memory_limit_mb = forms.IntegerField(required=False)
    time_limit_s = forms.IntegerField(required=False)
    cpu_limit_s = forms.IntegerField(required=False)


class BulkForm(forms.Form):
    """An action on chosen jobs, or on all that a filter matches."""

    action = forms.ChoiceField(choices=list(ACTIONS.items()))
    query = forms.CharField(required=False, max_length=4000)
    everything = forms.BooleanField(required=False)
    confirmed = forms.BooleanField(required=False)
    reason = forms.CharField(required=False, max_length=300, strip=True)


class CancelForm(forms.Form):
    reason = forms.CharField(required=False, max_length=300, strip=True)


class AcknowledgeForm(forms.Form):
    note = forms.CharField(required=False, max_length=300, strip=True)
    again = forms.BooleanField(required=False)
