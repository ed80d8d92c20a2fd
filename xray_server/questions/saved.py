"""Saved questions: checked when they are saved, kept by the store, filled in when they are run.

Whoever answers them (the API, the dashboard) goes through these functions; none of them knows about HTTP.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from xray.exceptions import QueryError
from xray_server.documents import Document
from xray_server.query.aggregate_parser import parse_aggregation
from xray_server.query.fields import MetricCatalog
from xray_server.query.operators import PLACEHOLDER, hint_for, show
from xray_server.query.parser import parse
from xray_server.questions.parameters import (
    SAMPLES,
    Parameter,
    Place,
    filled,
    parse_description,
    parse_parameters,
    places,
)
from xray_server.stores.base import NamedDocument, Store

KIND = "question"
"""The kind of named document that saved questions are."""

MAX_QUESTIONS = 1000
MAX_NAME = 100

Form = Literal["question", "aggregate"]
"""What is saved: a question, which lists, or an aggregation, which works out figures."""

_FORMS: tuple[Form, ...] = get_args(Form)
_KEYS = (*_FORMS, "parameters", "description")
_NAME = re.compile(r"\w[\w .+-]*\Z")


@dataclass(frozen=True, slots=True)
class SavedQuestion:
    """A question with a name.

    Args:
        name: Its name.
        form: Whether it lists or works out figures.
        asked: The question, with placeholders.
        parameters: Name → the parameter.
        description: What it is for, for people.
        created_at: When the name was first saved, in milliseconds since 1970.
        updated_at: When it was last changed.
    """

    name: str
    form: Form
    asked: Document
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    description: str | None = None
    created_at: int = 0
    updated_at: int = 0

    def document(self) -> Document:
        """What the store keeps: what :func:`parse_saved` was given."""
        declared = {name: parameter.as_dict() for name, parameter in self.parameters.items()}
        description = {} if self.description is None else {"description": self.description}
        return {**description, self.form: self.asked, "parameters": declared}

    def ask(self, given: Mapping[str, Any]) -> Document:
        """The question as it is asked.

        Args:
            given: Parameter → its value; one that is not given, or null, has its default.

        Raises:
            QueryError: There is no such parameter, one without a default is not given, or a value is of another type.
        """
        _refuse_unknown(given, self.parameters)
        values = {}
        for name, parameter in self.parameters.items():
            value = parameter.default if given.get(name) is None else given[name]
            if value is None:
                described = f" ({parameter.description})" if parameter.description else ""
                raise QueryError(
                    f"The parameter '{name}' has to be given{described}.",
                    code="missing_parameter",
                    path=f"parameters.{name}",
                    hint=f"It is of type {parameter.type}.",
                )
            values[name] = parameter.value_of(value, f"parameters.{name}")
        found: Document = filled(self.asked, values)
        return found

    def blame(self, error: QueryError) -> QueryError:
        """An error of the question as it was asked, at the parameter whose value is at fault, or in the question."""
        for place in places(self.asked):
            if place.is_concerned_by(error):
                error.path = f"parameters.{place.name}"
                return error
        error.path = ".".join(part for part in (self.form, error.path) if part)
        return error


# --- the store --------------------------------------------------------------------------------------------------


async def save(store: Store, project: str, name: str, body: Any, catalog: MetricCatalog) -> SavedQuestion:
    """Check a question and keep it under a name, in place of what had the name before.

    Args:
        store: The store, open.
        project: The project.
        name: The name.
        body: ``question`` or ``aggregate``, and if wanted ``parameters`` and ``description``; a JSON object, decoded.
        catalog: The metrics that it may name.

    Raises:
        QueryError: It is not of that form; ``path`` says where.
        StoreError: The data could not be written.
    """
    parsed = parse_saved(name, body, catalog)
    there = await store.all_named(project, KIND)
    if len(there) >= MAX_QUESTIONS and all(each.name != name for each in there):
        raise QueryError(
            f"There are {MAX_QUESTIONS:,} saved questions.", code="too_large", hint="Delete one that nobody asks."
        )
    return _read(await store.keep_named(project, KIND, name, parsed.document()))


async def find(store: Store, project: str, name: str) -> SavedQuestion:
    """The question of a name.

    Args:
        store: The store, open.
        project: The project.
        name: The name.

    Raises:
        QueryError: There is none; the code is ``unknown_question``, the hint the nearest name.
        StoreError: The data could not be read.
    """
    found = await store.named(project, KIND, name) if _is_name(name) else None
    return _read(found) if found else await _unknown(store, project, name)


async def every(store: Store, project: str) -> Sequence[SavedQuestion]:
    """Every saved question, by name.

    Raises:
        StoreError: The data could not be read.
    """
    return [_read(found) for found in await store.all_named(project, KIND)]


async def remove(store: Store, project: str, name: str) -> None:
    """Remove the question of a name.

    Args:
        store: The store, open.
        project: The project.
        name: The name.

    Raises:
        QueryError: There is none; the code is ``unknown_question``.
        StoreError: The data could not be written.
    """
    if not (_is_name(name) and await store.remove_named(project, KIND, name)):
        await _unknown(store, project, name)


async def _unknown(store: Store, project: str, name: str) -> SavedQuestion:
    names = [each.name for each in await store.all_named(project, KIND)]
    raise QueryError(
        f"There is no saved question '{show(name)}'.",
        code="unknown_question",
        path="name",
        hint=hint_for(name, *names) or ("'GET /v1/questions' lists those that there are." if names else None),
    )


def _read(kept: NamedDocument) -> SavedQuestion:
    form: Form = "aggregate" if "aggregate" in kept.document else "question"
    declared = kept.document.get("parameters") or {}
    return SavedQuestion(
        kept.name,
        form,
        kept.document[form],
        {name: Parameter(name, **given) for name, given in declared.items()},
        kept.document.get("description"),
        kept.created_at,
        kept.updated_at,
    )


# --- checking ---------------------------------------------------------------------------------------------------


def parse_saved(name: str, body: Any, catalog: MetricCatalog) -> SavedQuestion:
    """Parse and validate a question that is to be saved.

    Each parameter is tried with its default, or with values of its type: the question has to be one for some of them.

    Args:
        name: The name that it is to have.
        body: As for :func:`save`.
        catalog: The metrics that it may name.

    Raises:
        QueryError: It is not of that form; ``path`` says where.
    """
    if not _is_name(name):
        raise QueryError(
            f"A question cannot have the name '{show(name)}'.",
            code="bad_name",
            path="name",
            hint=f"Use up to {MAX_NAME} letters, digits, spaces and '_', '-', '.', '+', a letter or digit first.",
        )
    given = _known(body)
    forms: list[Form] = [form for form in _FORMS if form in given]
    if len(forms) != 1:
        raise QueryError(
            "What is saved is either a 'question' or an 'aggregate'.",
            path=forms[-1] if forms else None,
            hint='Write {"question": {"stage": {…}}, "parameters": {…}, "description": "…"}.',
        )
    (form,) = forms
    saved = SavedQuestion(
        name, form, given[form], parse_parameters(given.get("parameters", {})), parse_description(given)
    )
    _check(saved, catalog)
    return saved


def _is_name(name: str) -> bool:
    return len(name) <= MAX_NAME and _NAME.match(name) is not None and not name.endswith(" ")


def _known(body: Any) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise QueryError("What is saved is a JSON object.", hint='Write {"question": {…}}.')
    for key in body:
        if key not in _KEYS:
            hint = hint_for(key, *_KEYS) if isinstance(key, str) else None
            raise QueryError(
                f"A saved question has no '{show(key)}'.",
                code="unknown_key",
                path=show(key),
                hint=hint or f"It has {', '.join(_KEYS)}.",
            )
    return {key: value for key, value in body.items() if value is not None}


def _refuse_unknown(given: Mapping[str, Any], parameters: Mapping[str, Parameter]) -> None:
    for name in given:
        if name not in parameters:
            hint = hint_for(name, *parameters) if isinstance(name, str) else None
            there = f"There are {', '.join(parameters)}." if parameters else "The question has none."
            raise QueryError(
                f"There is no parameter '{show(name)}'.",
                code="unknown_parameter",
                path=f"parameters.{show(name)}",
                hint=hint or there,
            )


def _check(saved: SavedQuestion, catalog: MetricCatalog) -> None:
    asked, parameters = saved.asked, saved.parameters
    if not isinstance(asked, dict):
        raise QueryError("A question is a JSON object.", path=saved.form, hint='Write {"stage": {…}}.')
    if asked.get("cursor") is not None:
        raise QueryError("A saved question begins at its first row.", path=f"{saved.form}.cursor", hint="Leave it out.")
    found = list(places(asked, saved.form))
    for place in found:
        if place.name not in parameters:
            raise QueryError(
                f"There is no parameter '{show(place.name)}'.",
                code="unknown_parameter",
                path=place.path,
                hint=hint_for(place.name, *parameters) or f'Declare it: {{"{show(place.name)}": {{"type": …}}}}.',
            )
    for name in parameters:
        if all(place.name != name for place in found):
            raise QueryError(
                f"Nothing in the question stands for the parameter '{name}'.",
                path=f"parameters.{name}",
                hint=f'Write {{"{PLACEHOLDER}": "{name}"}} where its value belongs.',
            )
    read: Callable[[Any, MetricCatalog], object] = parse if saved.form == "question" else parse_aggregation
    _try(saved, [replace(place, path=place.path[len(saved.form) + 1 :]) for place in found], read, catalog)


def _try(
    saved: SavedQuestion,
    found: Sequence[Place],
    read: Callable[[Any, MetricCatalog], object],
    catalog: MetricCatalog,
) -> None:
    """Parse the question with values for its parameters, others where one does not fit, until there are no more."""
    left = {
        name: [parameter.value_of(parameter.default, name)]
        if parameter.default is not None
        else [*SAMPLES[parameter.type]]
        for name, parameter in saved.parameters.items()
    }
    errors: dict[str, QueryError] = {}
    while True:
        try:
            read(filled(saved.asked, {name: values[0] for name, values in left.items()}), catalog)
            return
        except QueryError as error:
            names = [place.name for place in found if place.is_concerned_by(error)]
            for name in names:
                errors.setdefault(name, error)
            other = next((name for name in names if len(left[name]) > 1), None)
            if other is None:
                raise _refused(saved, errors[names[0]] if names else error, names) from None
            left[other].pop(0)


def _refused(saved: SavedQuestion, error: QueryError, concerned: Sequence[str]) -> QueryError:
    at_default = [name for name in concerned if saved.parameters[name].default is not None]
    if at_default:
        error.path = f"parameters.{at_default[0]}.default"
    else:
        error.path = ".".join(part for part in (saved.form, error.path) if part)
    return error
