"""The job types: what they are called, what they take, what they may use, and the code that runs.

A job type is one file with one decorated function:

    @register("word_count", label="Word count", form=WordCountForm, describe=lambda p: "Count words")
    def word_count(tracker, parameters):
        ...
        return {"words": n}

Forms, the API's validation, choice lists, filters and the admin all read this registry.
"""

import logging
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from django import forms
from django.apps import apps
from django.utils.module_loading import module_has_submodule

from jobs import conf
from jobs.errors import InvalidParameters, UnknownJobType
from jobs.retry import RetryPolicy

log = logging.getLogger(__name__)


class Handler(Protocol):
    def __call__(self, tracker: Any, parameters: dict[str, Any]) -> dict[str, Any] | None: ...


class NoParameters(forms.Form):
    """For job types that take none."""


@dataclass(frozen=True)
class JobType:
    name: str
    label: str
    handler: Handler
    form: type[forms.Form] = NoParameters
    queue: str = "default"
    max_retries: int = 4
    memory_limit_mb: int | None = None  # None: the machine's default
    time_limit_s: int | None = None  # None: no limit
    cpu_limit_s: int | None = None  # None: no limit
    at_once: int | None = None  # jobs of this type that run at once; None: as many as there are places
    stalled_after_s: float | None = None  # without progress for so long it is stalled; None: by what its steps usually take
    resumable: bool = False  # keeps what it has done (tracker.done, tracker.checkpoint), so it can be paused and continued
    for_items: Callable[[dict[str, Any], list[str]], dict[str, Any]] | None = None  # parameters for just these items
    unit: str = "step"  # what one step is, for sentences: "page", "document"
    describe: Callable[[dict[str, Any]], str] | None = None  # cleaned parameters → the job's name
    total_steps: Callable[[dict[str, Any]], int | None] | None = None
    summarise: Callable[[dict[str, Any]], str] | None = None  # result → one line
    show_parameters: Callable[[dict[str, Any]], list[tuple[str, str]]] | None = None
    transient: tuple[type[BaseException], ...] = ()
    permanent: tuple[type[BaseException], ...] = ()
    help: str = ""
    result_template: str = ""  # a template for the result on the job's page; gets `job` and `result`
    warm_up: Callable[[], None] | None = None  # loads what every job of the type needs, once, before workers are forked
    check_subject: Callable[[dict[str, Any], Any], None] | None = None  # (parameters, subject id); raises InvalidParameters
    form_script: str = ""  # a static file for the page with the form
    needs_subject: bool = False  # works on what was found about a subject
    hidden: bool = False  # not offered in forms (benchmarks, tests)

    @property
    def retry_policy(self) -> RetryPolicy:
        return RetryPolicy(
            max_retries=self.max_retries,
            delays_s=tuple(conf.get("retry_delays_s")),
            jitter=conf.get("retry_jitter"),
            transient=self.transient,
            permanent=self.permanent,
            retry_after_max_s=conf.get("retry_after_max_s"),
        )

    def clean(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """Checked and normalised parameters. Raises InvalidParameters with a message per field."""
        if not isinstance(parameters, dict):
            raise InvalidParameters({"parameters": ["Must be an object of names and values."]})
        unknown = sorted(set(parameters) - set(self.form.base_fields))
        if unknown:
            known = ", ".join(self.form.base_fields) or "none"
            raise InvalidParameters({name: [f"Unknown parameter. Known are: {known}."] for name in unknown})
        # What was not given takes its default, as in the form on the page.
        given = {name: f.initial for name, f in self.form.base_fields.items() if f.initial is not None}
        form = self.form({**given, **parameters})
        if not form.is_valid():
            raise InvalidParameters({name: [str(e) for e in errors] for name, errors in form.errors.items()})
        return form.cleaned_data

    def parameters_shown(self, parameters: dict[str, Any]) -> list[tuple[str, str]]:
        """Names and values as people read them; plainly for those that an earlier release stored in another shape."""
        if self.show_parameters:
            try:
                return self.show_parameters(parameters)
            except (LookupError, TypeError, ValueError, AttributeError):
                log.warning("Parameters of %s could not be shown as the type would", self.name, exc_info=True)
        labels = {name: str(f.label or name.replace("_", " ").capitalize()) for name, f in self.form.base_fields.items()}
        return [(labels.get(name, name), str(value)) for name, value in parameters.items() if value not in (None, "", [])]

    def summary(self, result: dict[str, Any] | None) -> str:
        """The result in one line, or an empty string; also for one that an earlier release stored in another shape."""
        if not result:
            return ""
        try:
            return self.summarise(result) if self.summarise else str(result.get("summary", ""))
        except (LookupError, TypeError, ValueError, AttributeError):
            log.warning("A result of %s could not be summarised", self.name, exc_info=True)
            return ""


_types: dict[str, JobType] = {}


def register(name: str, **options: Any) -> Callable[[Handler], Handler]:
    """Decorate the handler of a job type. A name is registered once; a second time is a mistake."""

    def decorate(handler: Handler) -> Handler:
        if name in _types and _types[name].handler.__module__ != handler.__module__:
            raise ValueError(f"The job type {name!r} is registered twice.")
        _types[name] = JobType(name=name, handler=handler, **options)
        return handler

    return decorate


def unregister(name: str) -> None:
    _types.pop(name, None)


def get(name: str) -> JobType:
    """Raises UnknownJobType, which names the types that exist."""
    try:
        return _types[name]
    except KeyError:
        known = ", ".join(sorted(t.name for t in offered())) or "none"
        raise UnknownJobType(f"Unknown job type {name!r}. Installed are: {known}.") from None


def find(name: str) -> JobType | None:
    return _types.get(name)


def all_types() -> list[JobType]:
    return list(_types.values())


def offered() -> Iterator[JobType]:
    """The types that people can start, by label."""
    return iter(sorted((t for t in _types.values() if not t.hidden), key=lambda t: t.label))


def choices() -> list[tuple[str, str]]:
    return [(t.name, t.label) for t in offered()]


def queues() -> list[str]:
    """Every queue that a type names; `default` always, and first."""
    return ["default", *sorted({t.queue for t in _types.values()} - {"default"})]


def pausable(scope: str) -> list[str]:
    """The names that a QueuePause of this scope ("queue" or "type") may have, sorted."""
    return sorted(queues() if scope == "queue" else _types)


def warm_up() -> None:
    """Before workers are forked: what is loaded now is shared by all of them."""
    for kind in all_types():
        if kind.warm_up:
            kind.warm_up()


def autodiscover() -> None:
    """Import every file in the `job_types` folder of every installed app."""
    for app in apps.get_app_configs():
        if not module_has_submodule(app.module, "job_types"):
            continue
        package = import_module(f"{app.name}.job_types")
        for module in pkgutil.iter_modules(package.__path__):
            import_module(f"{package.__name__}.{module.name}")
