"""``/v1/diff`` and ``/v1/compare``: two runs, or two groups of runs, side by side."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from xray.exceptions import QueryError, SchemaError
from xray_server.analysis.cohorts import compare
from xray_server.analysis.diff import diff
from xray_server.analysis.reading import Reader
from xray_server.api.answers import Here, Service
from xray_server.api.bodies import read_body
from xray_server.api.insight_models import Comparison, RunDiff
from xray_server.api.models import ErrorAnswer
from xray_server.api.parameters import Parameters
from xray_server.api.shown import with_times
from xray_server.errors import json_response
from xray_server.query.parser import MAX_LIMIT

MAX_RUNS = 2000
"""Runs of each group that are compared, the latest; the answer says where there are more."""

router = APIRouter(tags=["insight"], responses={422: {"model": ErrorAnswer}})

_EXAMPLE = {"by": "version", "label": "competitor_discovery", "values": ["2026.10", "2026.11"]}
_BODY = {
    "requestBody": {
        "required": True,
        "description": "Either 'by', 'values' and the pipeline's 'label', or two filters on runs as 'a' and 'b'.",
        "content": {"application/json": {"schema": {"type": "object"}, "example": _EXAMPLE}},
    }
}
_BY = ("version", "environment", "status", "key", "label")
_KEYS = ("by", "values", "label", "a", "b", "level")


@router.get("/v1/diff/{run_id}/{other_id}", response_model=RunDiff, responses={404: {"model": ErrorAnswer}})
async def run_diff(run_id: str, other_id: str, _: Annotated[Parameters, Query()], service: Here) -> Response:
    """Show where two runs part: stages, verdicts, order, metrics and input."""
    return json_response(await diff_answer(service, run_id, other_id))


async def diff_answer(service: Service, run_id: str, other_id: str) -> dict[str, Any]:
    """Where two runs part, ready to be sent.

    Args:
        service: The service.
        run_id: The one run.
        other_id: The other.

    Raises:
        ApiError: There is no such run.
        StoreError: The data could not be read.
    """
    reader = Reader(service.store, service.project)
    return with_times(diff(await reader.run(run_id), await reader.run(other_id)))


@router.post("/v1/compare", response_model=Comparison, openapi_extra=_BODY)
async def cohort_compare(request: Request, service: Here) -> Response:
    """Say which metrics and which shares of reason labels moved between two groups of runs, and whether by chance."""
    limit = service.settings.max_question_bytes
    body = await read_body(request, max_bytes=limit, max_decompressed_bytes=limit)
    return json_response(await compare_answer(service, body))


async def compare_answer(service: Service, body: Any) -> dict[str, Any]:
    """What moved between two groups of runs, ready to be sent.

    Args:
        service: The service.
        body: What ``POST /v1/compare`` takes, decoded.

    Raises:
        SchemaError: It is not of that form.
        QueryError: A filter is not of the query language.
        StoreError: The data could not be read.
    """
    level, filters = await _groups(body, service)
    reader = Reader(service.store, service.project)
    groups, complete = [], True
    for name, condition in filters.items():
        ids, is_all = await _run_ids(service, condition, name)
        complete &= is_all
        groups.append([stage for stages in (await reader.stages_of(ids)).values() for stage in stages])
    return compare(*groups, level=level) | {"groups": list(filters.values()), "complete": complete}


async def _groups(body: Any, service: Service) -> tuple[float, dict[str, Any]]:
    """The level and the two conditions on runs that a body asks for."""
    if not isinstance(body, dict):
        raise SchemaError("A comparison is an object.", code="bad_value", hint=f"For example: {_EXAMPLE}")
    for name in body:
        if name not in _KEYS:
            raise SchemaError(f"There is no '{name:.50}'.", code="unknown_field", path=name, hint=f"{', '.join(_KEYS)}")
    level = body.get("level", 0.05)
    if isinstance(level, bool) or not isinstance(level, int | float) or not 0 < level < 1:
        raise SchemaError("'level' is a number between 0 and 1.", code="bad_value", path="level")
    if "by" not in body:
        for name in ("a", "b"):
            if not isinstance(body.get(name), dict):
                raise SchemaError(f"'{name}' is a filter on runs.", code="bad_value", path=name, hint=str(_EXAMPLE))
        return level, {"a": body["a"], "b": body["b"]}
    by, common = body["by"], {"label": body["label"]} if body.get("label") is not None else {}
    if by not in _BY:
        raise SchemaError(f"'by' is one of {', '.join(_BY)}.", code="bad_value", path="by")
    values = body.get("values") or await _latest_values(service, by, common)
    if not isinstance(values, list) or len(values) != 2:
        raise SchemaError(f"'values' are the two values of {by} to compare.", code="bad_value", path="values")
    return level, {name: {**common, by: value} for name, value in zip(("a", "b"), values, strict=True)}


async def _latest_values(service: Service, by: str, common: dict[str, Any]) -> list[Any]:
    """The two values that the latest runs have, the earlier first."""
    found: dict[Any, None] = {}
    question = {"pipeline": common, "return": "runs", "sort": {"started_at": -1}, "limit": MAX_LIMIT}
    for row in (await service.ask(question))["rows"]:
        if row.get(by) is not None:
            found.setdefault(row[by])
    if len(found) < 2:
        raise SchemaError(
            f"The latest runs have {len(found) or 'no'} {by} to compare.", code="bad_value", path="by",
            hint="Name two with 'values', and the pipeline with 'label'.",
        )  # fmt: skip
    return list(found)[1::-1]


async def _run_ids(service: Service, condition: Any, name: str) -> tuple[list[str], bool]:
    ids: list[str] = []
    question: dict[str, Any] = {"pipeline": condition, "return": "runs", "sort": {"started_at": -1}, "limit": MAX_LIMIT}
    while len(ids) < MAX_RUNS:
        try:
            answer = await service.ask(question)
        except QueryError as error:
            if error.path is not None:
                error.path = error.path.replace("pipeline", name, 1)
            raise
        ids += [row["id"] for row in answer["rows"]]
        if answer["cursor"] is None:
            return ids, True
        question["cursor"] = answer["cursor"]
    return ids[:MAX_RUNS], False
