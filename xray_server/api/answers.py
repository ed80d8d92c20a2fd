"""From a question to an answer's body: the one path of ``/v1/query`` and of every list."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request

from xray.exceptions import PluginError, QueryError
from xray.ids import now_ms
from xray.metrics import Metric
from xray.plugins import Plugins
from xray_server.admission import Admission
from xray_server.analysis.analyst import Analyst
from xray_server.analysis.llm import Model, ModelSettings
from xray_server.api.suffixes import read_parameter
from xray_server.daemons.daemon import Daemon
from xray_server.documents import PIPELINE_FIELDS, RUN_FIELDS, STAGE_FIELDS, Document
from xray_server.ingest import Ingest
from xray_server.intake import Intake
from xray_server.prepare import Prepared
from xray_server.query.aggregate import aggregate
from xray_server.query.aggregate_parser import parse_aggregation
from xray_server.query.cursor import encode_cursor
from xray_server.query.explain import explain, explain_figures
from xray_server.query.fields import MetricCatalog
from xray_server.query.parser import parse
from xray_server.query.run import answer
from xray_server.query.search import Coverage
from xray_server.query.selection import select
from xray_server.questions import saved as questions
from xray_server.settings import ServerSettings
from xray_server.stores.base import Store
from xray_server.telemetry import StoreUsage, Telemetry
from xray_server.workers import Workers
from xray_server.write_queue import WriteQueue
from xray_server.zones import aliases

T = TypeVar("T")

CATALOG_S = 5.0
"""How long what other services were told of names is not looked up; what is not known is looked up all the same."""

_EPOCH = dt.date(1970, 1, 1)
_TIMES = tuple(
    dict.fromkeys(
        name
        for fields in (PIPELINE_FIELDS, RUN_FIELDS, STAGE_FIELDS)
        for name, kind in fields.items()
        if kind == "time"
    )
)


class Service:
    """What the routers work with.

    Args:
        store: The store, open.
        plugins: The stage types that the service has.
        settings: The service's settings.
        version: The service's version.
    """

    project = "default"
    """The project of every request; no body can name one."""

    def __init__(self, store: Store, plugins: Plugins, settings: ServerSettings, version: str = "unknown") -> None:
        self.store = store
        self.plugins = plugins
        self.settings = settings
        self.started_at = now_ms()
        """In milliseconds since 1970."""
        self.ingest = Ingest(store, plugins)
        self.intake = Intake()
        self.workers = Workers(settings.ingest_processes, settings.max_events_per_batch)
        self.admission = Admission(settings.max_pending_bytes, code="busy", what="bodies")
        self.queue = WriteQueue(self.store_batch, settings.max_enqueued_bytes)
        self.usage = StoreUsage(store)
        self.telemetry = Telemetry()
        self.telemetry.watch(lambda: self.admission.bytes, self.admission.max_bytes, self.queue, version)
        self.telemetry.watch_store(self.usage)
        self.is_draining = False
        """Whether the service is about to end: it answers, and wants nothing new sent to it."""
        self.daemons: Sequence[Daemon] = ()
        """What runs beside answering; empty until the application has started."""
        model = ModelSettings.from_environment()
        self._catalog: tuple[float, int, MetricCatalog | None] = (0.0, 0, None)
        self._declared = 0
        """How many batches declared something: a name may mean more since."""
        self.analyst = Analyst(store, None if model is None else Model(model), plugins)

    async def store_batch(self, prepared: Prepared) -> None:
        """Write a batch; it is durable when this returns. The runs that end in it are analyzed where it asks for that.

        Raises:
            StoreError: Some or all of it is not stored; doing so again is safe.
        """
        with self.telemetry.step("write"):
            result = await self.ingest.take(self.project, prepared)
        if prepared.batch.declarations:
            self._declared += 1
        for run_id in result.to_analyze:
            self.analyst.analyze_later(self.project, run_id)

    async def declarations(self) -> dict[str, list[Metric]]:
        """Stage type → its metrics: of the plugins, and of senders whose types have no plugin here.

        A declaration of a sender that clashes with what is known already is left out.
        """
        known = MetricCatalog.of(self.plugins)
        found = {stage_type: list(metrics) for stage_type, metrics in self.plugins.metrics().items()}
        for stage_type, declared in (await self.store.declarations(self.project)).items():
            for declaration in declared:
                try:
                    known.add(stage_type, [declaration])
                except PluginError:
                    continue
                found.setdefault(stage_type, []).append(Metric(**declaration))
        return found

    async def catalog(self) -> MetricCatalog:
        """Everything that a question may name."""
        columns = {column for stage_type in self.plugins.stage_types.values() for column in stage_type.columns}
        declarations = await self.store.declarations(self.project)
        for declared in declarations.values():
            columns |= {each["name"] for each in declared if each.get("kind") == "column"}
        named = aliases(declarations.values())
        return MetricCatalog(await self.declarations(), candidate_columns=columns, aliases=named)

    async def ask(self, question: Any) -> dict[str, Any]:
        """Answer a question of the query language.

        Args:
            question: The JSON object, decoded.

        Returns:
            ``rows``, ``cursor`` and ``coverage``, ready to be sent; with ``explain`` no rows, and ``explanation``.

        Raises:
            QueryError: It is not of the query language.
            StoreError: The data could not be read.
        """
        parsed = await self._parsed(lambda catalog: parse(question, catalog))
        if parsed.explain:
            explanation = await explain(self.store, self.project, parsed)
            return whole_list([]) | {"explanation": explanation.as_dict()}
        found = await answer(self.store, self.project, parsed)
        rows: Iterable[Mapping[str, Any]] = found.rows
        if parsed.fields is not None:
            rows = (select(row, parsed.fields, parsed.returns) for row in rows)
        return {
            "rows": [presented(row) for row in rows],
            "cursor": None if found.next is None else encode_cursor(parsed, found.next),
            "coverage": found.coverage.as_dict(),
        }

    async def _parsed(self, parse_with: Callable[[MetricCatalog], T]) -> T:
        """Parse by the catalog that was read last; where that fails, or is old, by a new one: senders add to it."""
        read_at, declared, catalog = self._catalog
        if catalog is not None and declared == self._declared and time.monotonic() - read_at < CATALOG_S:
            with contextlib.suppress(QueryError):
                return parse_with(catalog)
        declared = self._declared
        catalog = await self.catalog()
        self._catalog = time.monotonic(), declared, catalog
        return parse_with(catalog)

    async def aggregate(self, asked: Any) -> dict[str, Any]:
        """Work out an aggregation of the query language.

        Args:
            asked: The JSON object, decoded.

        Returns:
            ``rows``, a ``cursor`` that is always null, and ``coverage``, ready to be sent; with ``explain`` no rows,
            and ``explanation``.

        Raises:
            QueryError: It is not of the query language, or has too many groups.
            StoreError: The data could not be read.
        """
        aggregation = await self._parsed(lambda catalog: parse_aggregation(asked, catalog))
        if aggregation.explain:
            explanation = await explain_figures(self.store, self.project, aggregation)
            return whole_list([]) | {"explanation": explanation.as_dict()}
        found = await aggregate(self.store, self.project, aggregation)
        return {"rows": found.rows, "cursor": None, "coverage": found.coverage.as_dict() | {"rollups": found.rollups}}

    async def run_saved(
        self, name: str, given: Mapping[str, Any], *, limit: int | None = None, explain: bool = False
    ) -> dict[str, Any]:
        """Answer a saved question.

        Args:
            name: Its name.
            given: Parameter → its value.
            limit: In place of the question's own.
            explain: Say how it is read and run, instead of asking it.

        Returns:
            What :meth:`ask` or :meth:`aggregate` answers, and the question as it was asked under its form
            (``question`` or ``aggregate``): with that and the cursor :meth:`ask` goes on.

        Raises:
            QueryError: There is no such question (``unknown_question``), a parameter is not as declared, or the
                question is not of the query language any more.
            StoreError: The data could not be read.
        """
        saved = await questions.find(self.store, self.project, name)
        asked = saved.ask(given)
        if limit is not None:
            asked["limit"] = limit
        answer_to = self.aggregate if saved.form == "aggregate" else self.ask
        try:
            answered = await answer_to(asked | ({"explain": True} if explain else {}))
        except QueryError as error:
            raise (error if limit is not None and error.path == "limit" else saved.blame(error)) from None
        return answered | {saved.form: asked}

    async def listing(
        self,
        returns: str,
        conditions: Mapping[str, Any],
        limit: int,
        cursor: str | None,
        suffixed: Mapping[str, Any] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Answer a list, which is a question in simpler clothes.

        Args:
            returns: ``runs``, ``stages`` or ``candidates``.
            conditions: Parameter → ``(part, field, value)``, or ``(part, field, operator, value)``; those whose value
                is None do not count.
            limit: How many rows at most.
            cursor: Where the page before stopped.
            suffixed: Parameters that name any field or metric, and an operator: ``fail_ratio__gt``.
            more: Keys of the question over those that the list makes: ``{"sort": {"duration_ms": -1}}``.

        Raises:
            QueryError: A value is none that the parameter can have; ``path`` names the parameter.
            StoreError: The data could not be read.
        """
        question: dict[str, Any] = {"return": returns, "limit": limit, "cursor": cursor}
        if returns == "candidates":
            question["candidate"] = {}
        parameters: dict[str, str] = {}
        for parameter, (part, name, operator, value) in conditions.items():
            if value is not None:
                question.setdefault(part, {}).setdefault(name, {})[operator] = value
                parameters[f"{part}.{name}.{operator}"] = parameter
        catalog = await self.catalog() if suffixed else MetricCatalog()
        for parameter, text in (suffixed or {}).items():
            part, name, operator, value = read_parameter(returns, parameter, text, catalog)
            question.setdefault(part, {}).setdefault(name, {})[operator] = value
            parameters[f"{part}.{name}.{operator}"] = parameter
        question |= more or {}
        try:
            return await self.ask(question)
        except QueryError as error:
            for path, parameter in parameters.items():
                if error.path is not None and (path.startswith(error.path) or error.path.startswith(path)):
                    error.path = parameter
                    break
            raise


def service_of(request: Request) -> Service:
    """The service that a request is for."""
    service: Service = request.app.state.service
    return service


Here = Annotated[Service, Depends(service_of)]


def presented(document: Mapping[str, Any]) -> Document:
    """A document as the API shows it: its times as ISO 8601, UTC, with milliseconds."""
    shown = dict(document)
    for name in _TIMES:
        if name in shown:
            shown[name] = iso_time(shown[name])
    pipeline = shown.get("pipeline")
    if isinstance(pipeline, dict) and "started_at" in pipeline:
        shown["pipeline"] = {**pipeline, "started_at": iso_time(pipeline["started_at"])}
    return shown


def iso_time(milliseconds: int | None) -> str | None:
    """A moment as ISO 8601 in UTC: ``2026-11-01T00:00:00.000Z``."""
    if milliseconds is None:
        return None
    seconds, rest = divmod(milliseconds, 1000)
    day, second = divmod(seconds, 86_400)
    return f"{_date(day)}T{_clock(second)}.{rest:03}Z"


@functools.lru_cache(maxsize=4096)
def _date(day: int) -> str:
    return (_EPOCH + dt.timedelta(days=day)).isoformat()


@functools.lru_cache(maxsize=86_400)
def _clock(second: int) -> str:
    return f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"


def whole_list(rows: list[Any]) -> dict[str, Any]:
    """A list that is not paged, in the shape of all lists."""
    coverage = Coverage(len(rows), 0, 0, 0, complete=True)
    return {"rows": rows, "cursor": None, "coverage": coverage.as_dict()}
