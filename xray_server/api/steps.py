"""A run step by step, for senders that know its parts one after the other: ``/v1/runs`` and ``/v1/stages``.

Each request becomes events of the wire schema and goes the way of ``/v1/ingest``: the same checks, the same merge. So
they may come in any order and more than once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from xray.exceptions import SchemaError, did_you_mean
from xray.ids import new_id
from xray.schema import EVENT_FIELDS, RUN_FIELDS, EventField
from xray.wire_schema import object_schema
from xray_server.api import taking
from xray_server.api.answers import Here, Service
from xray_server.api.models import ErrorAnswer, StepAnswer
from xray_server.api.parameters import Parameters
from xray_server.api.stages import find_stage
from xray_server.errors import ApiError, json_response
from xray_server.prepare import Batch
from xray_server.validation import says_the_end

router = APIRouter(tags=["ingest"], responses=taking.ERRORS)

Events = list[dict[str, Any]]


def _names(fields: Iterable[EventField]) -> dict[str, None]:
    return dict.fromkeys(field.name for field in fields)


_OF_RUN = _names(RUN_FIELDS)
_START = _names(EVENT_FIELDS["run.start"])
_END = {name: None for name in _names(EVENT_FIELDS["run.end"]) if name not in _START}
_RENAMED = {"stage_type": "type"}
"""A body's ``type`` is the stage's: that it is about a stage is said by the address."""

_STAGE = {_RENAMED.get(name, name): None for name in _names(EVENT_FIELDS["stage"])}
_UPDATE = {_RENAMED.get(name, name): None for name in _names(EVENT_FIELDS["stage.update"])}
_CANDIDATES = _names(EVENT_FIELDS["candidates"])


def _body(fields: Iterable[EventField], **own: dict[str, Any]) -> dict[str, Any]:
    """How a body is described."""
    schema = object_schema([field for field in fields if field.name not in _RENAMED], **own)
    content = {media_type: {"schema": schema} for media_type in ("application/json", "application/msgpack")}
    return {"requestBody": {"required": True, "content": content}}


_RUN_BODY = _body((*RUN_FIELDS, *EVENT_FIELDS["run.start"], *EVENT_FIELDS["run.end"]))
_STAGE_OWN = {
    "id": {"type": "string", "format": "uuid", "description": "The stage's UUID; made where it is left out."},
    "run_id": {"type": "string", "format": "uuid", "description": "The run's, where nothing else is said of it."},
    "run": object_schema(RUN_FIELDS),
    "type": {"type": "string", "description": "The stage's type: filtering, scoring, … or a plugin's."},
}
_RUN_OWN = {name: _STAGE_OWN[name] for name in ("run_id", "run")}


@router.post("/v1/runs", response_model=StepAnswer, status_code=201, openapi_extra=_RUN_BODY)
async def begin_run(request: Request, _: Annotated[Parameters, Query()], service: Here) -> Response:
    """Begin a run; or say all of it, where it has ended already."""

    async def events(body: dict[str, Any]) -> Events:
        return _run_events(body, body.get("id") or new_id())

    return await _take(request, service, events, 201)


@router.patch("/v1/runs/{run_id}", response_model=StepAnswer, openapi_extra=_RUN_BODY)
async def update_run(run_id: str, request: Request, _: Annotated[Parameters, Query()], service: Here) -> Response:
    """Say more of a run: how it ended, what it returned. It need not have been begun."""

    async def events(body: dict[str, Any]) -> Events:
        return _run_events(body, _same_id(body, run_id))

    return await _take(request, service, events)


@router.post(
    "/v1/stages", response_model=StepAnswer, status_code=201, openapi_extra=_body(EVENT_FIELDS["stage"], **_STAGE_OWN)
)
async def begin_stage(request: Request, _: Annotated[Parameters, Query()], service: Here) -> Response:
    """Begin a stage of a run; or say all of it, with its candidates, where it has ended already."""

    async def events(body: dict[str, Any]) -> Events:
        _refuse_unknown(body, {**_STAGE_OWN, **_STAGE})
        event = {"type": "stage", "id": body.get("id") or new_id(), "run": _given_run(body) or {}}
        event |= _renamed(body, _STAGE)
        if not says_the_end(body):
            event["status"] = "running"
        return [event]

    return await _take(request, service, events, 201)


@router.patch(
    "/v1/stages/{stage_id}",
    response_model=StepAnswer,
    responses={404: {"model": ErrorAnswer}},
    openapi_extra=_body(EVENT_FIELDS["stage.update"], **_STAGE_OWN),
)
async def update_stage(stage_id: str, request: Request, _: Annotated[Parameters, Query()], service: Here) -> Response:
    """Say more of a stage: how it ended. Where the stage may not be known yet, the body names its run."""

    async def events(body: dict[str, Any]) -> Events:
        _refuse_unknown(body, {**_STAGE_OWN, **_UPDATE})
        event = {"type": "stage.update", "id": _same_id(body, stage_id), "run": await _run_of(service, stage_id, body)}
        return [event | _renamed(body, _UPDATE)]

    return await _take(request, service, events)


@router.post(
    "/v1/stages/{stage_id}/candidates",
    response_model=StepAnswer,
    responses={404: {"model": ErrorAnswer}},
    openapi_extra=_body(EVENT_FIELDS["candidates"], **_RUN_OWN),
)
async def add_candidates(stage_id: str, request: Request, _: Annotated[Parameters, Query()], service: Here) -> Response:
    """Add candidates to a stage, from the place `from_seq` on; sending some of them again changes nothing."""

    async def events(body: dict[str, Any]) -> Events:
        _refuse_unknown(body, {**_RUN_OWN, **_CANDIDATES})
        for name, meaning in (("from_seq", "0 for the first ones"), ("candidates", "or columns")):
            if body.get(name) is None and not (name == "candidates" and body.get("columns") is not None):
                raise SchemaError(f"'{name}' is missing.", code="missing_field", path=name, hint=f"Give {meaning}.")
        event = {"type": "candidates", "id": stage_id, "run": await _run_of(service, stage_id, body)}
        return [event | _renamed(body, _CANDIDATES)]

    return await _take(request, service, events)


async def _take(
    request: Request, service: Service, events_of: Callable[[dict[str, Any]], Any], status: int = 200
) -> Response:
    """Read a body, make events of it, and store them."""
    with service.intake.batch() as note, service.admission.hold() as hold:
        received = await taking.take_body(request, service, hold)
        body = await received.decoded()
        if not isinstance(body, dict):
            raise SchemaError("The body is an object.", code="bad_body")
        events = await events_of({name: value for name, value in body.items() if value is not None})
        prepared = await service.ingest.prepare(Batch(events))
        if prepared.result.errors:
            raise _of_body(prepared.result.errors[0].error, is_run=events[0]["type"] == "run.start")
        await service.store_batch(prepared)
        note(prepared.result)
    service.telemetry.took(prepared, "stored")
    run_id = events[0]["run"]["id"]
    return json_response({"id": events[0].get("id", run_id), "run_id": run_id}, status)


def _run_events(body: Mapping[str, Any], run_id: Any) -> Events:
    """What a body says of a run, as events."""
    _refuse_unknown(body, {**_OF_RUN, **_START, **_END})
    run = {name: body[name] for name in _OF_RUN if name in body} | {"id": run_id}
    events: Events = [{"type": "run.start", "run": run} | {name: body[name] for name in _START if name in body}]
    end = {name: body[name] for name in _END if name in body}
    if end:
        if not says_the_end(end):
            end["status"] = "running"
        events.append({"type": "run.end", "run": run} | end)
    return events


def _renamed(body: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """The fields of an event that a body gives."""
    back = {shown: name for name, shown in _RENAMED.items()}
    return {back.get(name, name): body[name] for name in names if name in body}


def _refuse_unknown(body: Mapping[Any, Any], known: Mapping[str, Any]) -> None:
    for name in body:
        if name not in known:
            raise SchemaError(
                f"The body has no field '{name!s:.100}'.",
                code="unknown_field",
                path=str(name),
                hint=did_you_mean(str(name), known),
            )


def _same_id(body: Mapping[str, Any], id: str) -> str:
    if body.get("id", id) != id:
        raise SchemaError("The id is not that of the address.", code="bad_value", path="id", hint="Leave it out.")
    return id


def _given_run(body: Mapping[str, Any]) -> Any:
    """What a body says of the run, or None."""
    run, run_id = body.get("run"), body.get("run_id")
    if run_id is None or (run is not None and not isinstance(run, dict)):
        return run
    if (run or {}).get("id", run_id) != run_id:
        raise SchemaError("'run_id' and 'run.id' differ.", code="bad_value", path="run_id", hint="Give one of them.")
    return {**(run or {}), "id": run_id}


async def _run_of(service: Service, stage_id: str, body: Mapping[str, Any]) -> Any:
    """The run of a stage: as the body says, else as the store knows it."""
    given = _given_run(body)
    if given is not None:
        return given
    try:
        return {"id": (await find_stage(service, stage_id))["run_id"]}
    except ApiError as error:
        if error.status == 404:
            error.hint = 'A body with "run_id" is taken before the stage is known.'
        raise


def _of_body(error: SchemaError, *, is_run: bool) -> SchemaError:
    """An error of an event, said of the body that it was made of."""
    path = (error.path or "").partition("].")[2] or None
    if path is not None and is_run:
        path = path.removeprefix("run.")
    message = error.message
    for name, shown in _RENAMED.items():
        path = shown if path == name else path
        message = message.replace(f"'{name}'", f"'{shown}'")
    return SchemaError(message, code=error.code, path=path, hint=error.hint)
