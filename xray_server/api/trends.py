"""``/v1/trends``: how figures moved over time, and the question for the runs behind a point."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from xray.exceptions import SchemaError, did_you_mean
from xray.ids import now_ms
from xray_server.analysis.trends import BY, MAX_STRETCHES, Wanted, fitting_bucket_ms, trends
from xray_server.api.answers import Here, Service, iso_time
from xray_server.api.insight_models import TrendParameters, Trends
from xray_server.api.models import ErrorAnswer
from xray_server.api.moments import moment_ms, stretch_ms
from xray_server.errors import json_response
from xray_server.quantities import show_duration
from xray_server.rollups import HOUR_MS

router = APIRouter(tags=["insight"], responses={422: {"model": ErrorAnswer}})


@router.get("/v1/trends", response_model=Trends)
async def trends_over_time(parameters: Annotated[TrendParameters, Query()], service: Here) -> Response:
    """Show how fail ratio, reason labels, scores, durations and volume moved, per pipeline, stage and version."""
    return json_response(await trend_answer(service, parameters))


async def trend_answer(service: Service, parameters: TrendParameters) -> dict[str, Any]:
    """The trends that some parameters ask for, ready to be sent.

    Args:
        service: The service.
        parameters: What is asked for.

    Raises:
        SchemaError: A parameter cannot be so.
        StoreError: The data could not be read.
    """
    wanted = _wanted(parameters)
    found = await trends(service.store, service.project, wanted)
    for row in found["rows"]:
        row["until"] = iso_time(row["from"] + wanted.bucket_ms)
        row["from"] = iso_time(row["from"])
    span = {"since": iso_time(wanted.since), "until": iso_time(wanted.until)}
    return {"bucket": show_duration(wanted.bucket_ms), "by": list(wanted.by), **span, **found}


def runs_behind(row: Mapping[str, Any]) -> dict[str, Any]:
    """The question for the runs behind a row of :func:`trend_answer`.

    Args:
        row: The row.
    """
    stage: dict[str, Any] = {"started_at": {"$gte": row["from"], "$lt": row["until"]}}
    pipeline: dict[str, Any] = {}
    for part, names in ((stage, ("name", "type")), (pipeline, ("label", "version"))):
        part.update({name: row[name] for name in names if name in row})
    question = {"pipeline": pipeline, "stage": stage, "return": "runs"}
    return {name: value for name, value in question.items() if value}


def _wanted(parameters: TrendParameters) -> Wanted:
    now = now_ms()
    since, until = moment_ms(parameters.since, "since"), moment_ms(parameters.until, "until")
    until = now if until is None else until
    if since is None or since >= until:
        raise SchemaError("'since' lies before 'until'.", code="bad_parameter", path="since", hint="For example 30d.")
    if parameters.bucket is None:
        bucket_ms = fitting_bucket_ms(until - since)
    else:
        bucket_ms = stretch_ms(parameters.bucket, "bucket")
    if bucket_ms % HOUR_MS:
        raise SchemaError(
            "A stretch of time is whole hours.", code="bad_parameter", path="bucket", hint="Write 1h, 6h or 7d."
        )
    since = since // bucket_ms * bucket_ms  # so that the first stretch is whole too
    if until - since > MAX_STRETCHES * bucket_ms:
        raise SchemaError(
            f"That would be more than {MAX_STRETCHES:,} stretches of time.",
            code="bad_parameter",
            path="bucket",
            hint=f"Take a longer one, such as {show_duration(fitting_bucket_ms(until - since))}, or a later 'since'.",
        )
    return Wanted(
        since, until, bucket_ms, _by(parameters.by), parameters.label, parameters.name, parameters.type,
        parameters.version, tuple(_words(parameters.metrics)), parameters.labels,
    )  # fmt: skip


def _by(text: str) -> tuple[str, ...]:
    words = _words(text)
    for word in words:
        if word not in BY:
            raise SchemaError(
                f"Rows cannot be told apart by '{word:.50}'.",
                code="bad_parameter",
                path="by",
                hint=did_you_mean(word, BY) or f"There are {', '.join(BY)}.",
            )
    return tuple(word for word in BY if word in words)


def _words(text: str | None) -> list[str]:
    return list(dict.fromkeys(word.strip() for word in (text or "").split(",") if word.strip()))
