"""The list of runs: filters, search, order, and what became of the candidates of each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import Field

from xray.ids import is_id
from xray.metrics import folded
from xray.schema import STATUSES
from xray_server.analysis.reading import Reader, all_of
from xray_server.api.answers import Here, Service
from xray_server.api.parameters import RunParameters
from xray_server.api.runs import run_conditions
from xray_server.dashboard import first_visit, forms
from xray_server.dashboard.choices import choices
from xray_server.dashboard.rendering import render
from xray_server.documents import Document
from xray_server.query.ast import Compare, In, SortKey, Test
from xray_server.query.ast import Field as Named
from xray_server.query.fields import camel

router = APIRouter(include_in_schema=False)

MOST_STAGES = 60
"""A run with more stages has no small chart in the list: reading them all would take the page's time."""

_BARS = 24
_FIELDS = (
    ("started_at", "started"),
    ("duration_ms", "how long it took"),
    ("stage_count", "number of stages"),
    ("label", "pipeline"),
    ("version", "version"),
    ("status", "status"),
)


class RunsPage(RunParameters):
    """What the page takes beside the parameters of ``/v1/runs``."""

    q: str | None = Field(None, max_length=500)
    sort: str = "-started_at"


@dataclass(slots=True)
class Listed:
    """One row of the list.

    Args:
        run: The run's document, or what its stage says of it.
        stage: The stage that the list is sorted by, where it is sorted by a metric.
        bars: What the filters of the run rejected: name, share, in the order of the stages.
        counts: How many candidates went into the first of them that says so, and came out of the last one.
    """

    run: Mapping[str, Any]
    stage: Mapping[str, Any] | None = None
    bars: list[tuple[str, float]] = field(default_factory=list)
    counts: tuple[int, int] | None = None

    def metric_value(self, name: str) -> Any:
        """The value of a metric of the stage; of a table's entry by its dotted name.

        Args:
            name: The metric's name as a question may write it.
        """
        word, _, key = name.partition(".")
        metrics = {folded(each): value for each, value in ((self.stage or {}).get("metrics") or {}).items()}
        value = metrics.get(folded(word))
        return value.get(key) if key and isinstance(value, dict) else value


@router.get("/")
async def runs(request: Request, service: Here) -> Response:
    """The runs, the latest first unless the address says otherwise."""
    parameters = forms.read(RunsPage, request)
    by_metric = parameters.sort.lstrip("-").startswith(("$", "metrics."))
    answer = await _answer(service, parameters, by_metric=by_metric)
    rows = await _listed(service, answer["rows"], by_metric=by_metric)
    filtered = bool(request.query_params)
    shown = {
        "answer": answer,
        "rows": rows,
        "sort": parameters.sort,
        "metric": parameters.sort.lstrip("-").removeprefix("metrics.").lstrip("$") if by_metric else None,
        "unit": await _unit(service, parameters.sort) if by_metric else "",
        "sorts": await _sorts(service, parameters.sort),
        "choices": await choices(service),
        "statuses": STATUSES,
        "has": {name: any(row.run.get(name) for row in rows) for name in ("environment", "tags")},
        "filtered": filtered,
        "others": parameters.suffixed(),
        "follows": parameters.cursor is None and parameters.sort == "-started_at",
    }
    if not rows and not filtered:
        return render(request, "first_visit.html", first_visit.shown(request))
    return render(request, "runs.html", shown)


async def _answer(service: Service, parameters: RunsPage, *, by_metric: bool) -> dict[str, Any]:
    conditions = run_conditions(parameters)
    if parameters.q is not None:
        wanted = parameters.q.strip()
        conditions["q"] = (
            ("pipeline", "id", "$eq", wanted)
            if is_id(wanted)
            else ("pipeline", "key", "$regex", "^" + re.sub(r"([^\w\s-])", r"\\\1", wanted))
        )
    name = parameters.sort.lstrip("-")
    more: dict[str, Any] = {"sort": {name: -1 if parameters.sort.startswith("-") else 1}}
    if by_metric:
        more |= {"return": "stages", "stage": {name: {"$exists": True}}}
    return parameters.paged(
        await service.listing("runs", conditions, parameters.limit, parameters.cursor, parameters.suffixed(), more=more)
    )


async def _listed(service: Service, found: Sequence[Document], *, by_metric: bool) -> list[Listed]:
    reader = Reader(service.store, service.project)
    if by_metric:
        ids = tuple(dict.fromkeys(stage["run_id"] for stage in found))
        by_id = {run["id"]: run for run in await reader.runs(Test(Named(("id",)), In(ids)), limit=len(ids) or 1)}
        rows = [Listed(by_id.get(stage["run_id"], {"id": stage["run_id"]}), stage) for stage in found]
    else:
        rows = [Listed(run) for run in found]
    small = {row.run["id"] for row in rows if (row.run.get("stage_count") or 0) <= MOST_STAGES}
    if small:
        await _measure(reader, [row for row in rows if row.run["id"] in small], tuple(small))
    return rows


async def _measure(reader: Reader, rows: Sequence[Listed], ids: tuple[str, ...]) -> None:
    """Read the first stages of these runs, and note in the rows what their filters did."""
    of_runs = Test(Named(("run_id",)), In(ids))
    first = Test(Named(("order",)), Compare("lt", MOST_STAGES))
    stages = await reader.stages(
        stage=all_of(of_runs, first), sort=(SortKey(Named(("order",))),), limit=len(ids) * MOST_STAGES
    )
    by_run: dict[str, list[Document]] = {}
    for stage in stages:
        by_run.setdefault(stage["run_id"], []).append(stage)
    for row in rows:
        own = by_run.get(row.run["id"], [])
        for stage in own:
            ratio = (stage.get("metrics") or {}).get("fail_ratio")
            if isinstance(ratio, int | float) and len(row.bars) < _BARS:
                row.bars.append((str(stage.get("name") or ""), float(ratio)))
        row.counts = _counts(own)


def _counts(stages: Sequence[Document]) -> tuple[int, int] | None:
    """How many candidates there were at first, and at last, at the outermost level."""
    ids = {stage["id"] for stage in stages}
    outer = [stage.get("metrics") or {} for stage in stages if stage.get("parent_id") not in ids]
    came = [metrics.get("input_count", metrics.get("output_count")) for metrics in outer]
    went = [metrics.get("output_count") for metrics in outer]
    numbers = [count for count in came if isinstance(count, int)], [count for count in went if isinstance(count, int)]
    return (max(numbers[0]), numbers[1][-1]) if all(numbers) else None


async def _unit(service: Service, sort: str) -> str:
    name = sort.lstrip("-").removeprefix("metrics.").lstrip("$").partition(".")[0]
    declared = (metric for metrics in (await service.declarations()).values() for metric in metrics)
    return next((metric.unit for metric in declared if folded(metric.name) == folded(name)), "")


async def _sorts(service: Service, current: str) -> list[tuple[str, str]]:
    """What the list can be sorted by: value of the parameter, words."""
    metrics = {
        metric.name: metric for declared in (await service.declarations()).values() for metric in declared
        if metric.kind == "number"
    }  # fmt: skip
    found = []
    for name, words in _FIELDS:
        found += [(f"-{name}", f"{words}, highest first"), (name, f"{words}, lowest first")]
    found[:2] = [("", "latest first"), ("started_at", "earliest first")]
    for name in sorted(metrics):
        found += [(f"-{camel(name)}", f"{name} of a stage, highest first"), (camel(name), f"{name}, lowest first")]
    if current not in dict(found) and current != "-started_at":
        found.append((current, current))
    return found
