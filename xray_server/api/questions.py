"""``/v1/questions``: saving questions under a name, and asking them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from xray.exceptions import QueryError
from xray_server.api.answers import Here, Service, iso_time, whole_list
from xray_server.api.bodies import read_body
from xray_server.api.models import Deleted, ErrorAnswer, SavedAnswer, SavedList, SavedModel
from xray_server.api.parameters import Parameters
from xray_server.documents import Document
from xray_server.errors import ApiError, json_response
from xray_server.query.parser import known_keys
from xray_server.questions import saved
from xray_server.questions.saved import SavedQuestion

router = APIRouter(tags=["query"], responses={404: {"model": ErrorAnswer}, 422: {"model": ErrorAnswer}})

_RUN_KEYS = ("parameters", "limit", "explain")


def _body(description: str, example: Document, *, required: bool = True) -> dict[str, Any]:
    content = {"application/json": {"schema": {"type": "object"}, "example": example}}
    return {"requestBody": {"required": required, "description": description, "content": content}}


_SAVE = _body(
    "A question or an aggregation, with placeholders; its parameters; and what it is for.",
    {
        "description": "Filters that drop nearly everything.",
        "question": {"stage": {"type": "filtering", "$failRatio": {"$gt": {"$param": "threshold"}}}},
        "parameters": {"threshold": {"type": "number", "default": 0.9}},
    },
)
_RUN = _body("The values of the parameters that have others than their defaults.", {"parameters": {"threshold": 0.5}})


@router.get("/v1/questions", response_model=SavedList)
async def questions(_: Annotated[Parameters, Query()], service: Here) -> Response:
    """List the saved questions."""
    found = await saved.every(service.store, service.project)
    return json_response(whole_list([shown(each) for each in found]))


@router.get("/v1/questions/{name}", response_model=SavedModel)
async def question(name: str, service: Here) -> Response:
    """A saved question."""
    with _missing_is_404():
        return json_response(shown(await saved.find(service.store, service.project, name)))


@router.put("/v1/questions/{name}", response_model=SavedModel, openapi_extra=_SAVE)
async def save(name: str, request: Request, service: Here) -> Response:
    """Save a question under a name, in place of what had it before; one that could not be asked is refused."""
    body = await _read(request, service)
    kept = await saved.save(service.store, service.project, name, body, await service.catalog())
    return json_response(shown(kept))


@router.delete("/v1/questions/{name}", response_model=Deleted)
async def delete(name: str, service: Here) -> Response:
    """Delete a saved question."""
    with _missing_is_404():
        await saved.remove(service.store, service.project, name)
    return json_response({"deleted": name})


@router.post("/v1/questions/{name}/run", response_model=SavedAnswer, openapi_extra=_RUN)
async def run(name: str, request: Request, service: Here) -> Response:
    """Ask a saved question; the answer is that of ``/v1/query`` or ``/v1/aggregate``, with the question as asked."""
    given = known_keys(await _read(request, service), _RUN_KEYS)
    values, explain = given.get("parameters", {}), given.get("explain", False)
    if not isinstance(values, dict):
        raise QueryError("'parameters' is an object.", path="parameters", hint='Write {"threshold": 0.5}.')
    if not isinstance(explain, bool):
        raise QueryError("'explain' is true or false.", path="explain")
    with _missing_is_404():
        return json_response(await service.run_saved(name, values, limit=given.get("limit"), explain=explain))


def shown(question: SavedQuestion) -> Document:
    """A saved question as the API shows it."""
    times = {"created_at": iso_time(question.created_at), "updated_at": iso_time(question.updated_at)}
    return {"name": question.name, **question.document(), **times}


async def _read(request: Request, service: Service) -> Any:
    limit = service.settings.max_question_bytes
    return await read_body(request, max_bytes=limit, max_decompressed_bytes=limit)


@contextmanager
def _missing_is_404() -> Iterator[None]:
    try:
        yield
    except QueryError as error:
        if error.code != "unknown_question":
            raise
        raise ApiError(error.message, status=404, code=error.code, path=error.path, hint=error.hint) from None
