"""The page of questions: an editor, the answer as a table, how it was read and run, and the same elsewhere."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response
from markupsafe import Markup

from xray.exceptions import QueryError
from xray_server.api.answers import Here, Service
from xray_server.dashboard import links
from xray_server.dashboard.answers_table import Table, groups_table, metric_words
from xray_server.dashboard.choices import choices
from xray_server.dashboard.filters import visible
from xray_server.dashboard.places import Place, locate, malformed
from xray_server.dashboard.rendering import render
from xray_server.documents import CANDIDATE_FIELDS, RUN_FIELDS, STAGE_FIELDS
from xray_server.query.aggregate_parser import KEYS as AGGREGATE_KEYS
from xray_server.query.aggregate_parser import parse_aggregation
from xray_server.query.describe import describe, describe_figures
from xray_server.query.fields import MetricCatalog
from xray_server.query.operators import FIELD_OPERATORS, LOGICAL_OPERATORS
from xray_server.query.parser import KEYS as QUESTION_KEYS
from xray_server.query.parser import parse
from xray_server.questions import saved as saved_questions
from xray_server.questions.parameters import Parameter

router = APIRouter(include_in_schema=False)

EXAMPLES: tuple[tuple[str, dict[str, Any]], ...] = (
    (
        "Filters that reject more than nine in ten",
        {"stage": {"type": "filtering", "$failRatio": {"$gt": 0.9}}, "return": "stages", "sort": {"$failRatio": -1}},
    ),
    ("Runs that failed", {"pipeline": {"status": "failure"}, "return": "runs"}),
    (
        "Candidates that were rejected for a reason",
        {
            "candidate": {"verdict": "failed", "reason_label": {"$exists": True}},
            "return": "candidates",
            "limit": 100,
        },
    ),
    (
        "Runs in which a filter and a ranking took place",
        {"stages": [{"type": "filtering"}, {"type": "ranking"}], "return": "runs"},
    ),
    (
        "How the median fail ratio moved, by day",
        {
            "stage": {"type": "filtering"},
            "group_by": ["pipeline.label", "name"],
            "bucket": "day",
            "values": {"stages": {"$count": {}}, "median": {"$p50": "$failRatio"}},
        },
    ),
)
_WRONG_WORD = re.compile(r"Did you mean '([^']+)'\?")
_COMPLETED_KEYS = tuple(dict.fromkeys((*QUESTION_KEYS, *AGGREGATE_KEYS)))


@router.get("/query")
async def query(request: Request, service: Here) -> Response:
    """The page of questions: ``q`` is one as JSON, ``saved`` the name of one with its parameters as ``p.NAME``."""
    status = 200
    kept: dict[str, Any] = {"opened": None, "parameters_given": {}}
    problem = None
    given = request.query_params.get("q", "")
    name = request.query_params.get("saved")
    if name and not given:
        try:
            kept = await _saved(service, request, name)
            given = kept.pop("text")
        except QueryError as error:
            status = 404 if error.code == "unknown_question" else 422
            problem = error.as_dict()
    text = given.strip()
    catalog = await service.catalog()
    shown: dict[str, Any] = {
        "text": given or _pretty(EXAMPLES[0][1]),
        "asked": bool(text),
        "examples": [(title, _pretty(example)) for title, example in EXAMPLES],
        "words": _in_script(await _words(service, catalog)),
        "problem": problem,
        "place": None,
        "mended": None,
        "heads": [],
        "rows": [],
        "answer": None,
        "reading": None,
        "plan": None,
        "elsewhere": [],
        "returns": None,
        "saved": await saved_questions.every(service.store, service.project),
        "question_json": None,
        **kept,
    }
    if text:
        try:
            shown |= await _answered(service, catalog, request, given)
        except QueryError as error:
            status = 422
            shown |= _refused(given, error)
    return render(request, "query.html", shown, status=status)


@router.get("/query/plan")
async def plan(request: Request, service: Here) -> Response:
    """How the store runs the question ``q``: a part of its page, because some stores take a while to say it."""
    question = _parsed(request.query_params.get("q", ""))
    ask = service.aggregate if is_aggregation(question) else service.ask
    explained = await ask({**question, "explain": True})
    return render(request, "query_plan.html", {"explanation": explained["explanation"]})


async def _answered(service: Service, catalog: MetricCatalog, request: Request, text: str) -> dict[str, Any]:
    question = _parsed(text)
    bare = {name: value for name, value in question.items() if name not in ("cursor", "explain")}
    where = links.with_parameters("/query/plan", {"q": _compact(bare)})
    if is_aggregation(question):
        answer = await service.aggregate({name: value for name, value in question.items() if name != "explain"})
        heads, rows = groups_table(answer["rows"])
        return {
            "answer": answer, "heads": heads, "rows": rows, "returns": "groups", "question_json": _in_script(question),
            "reading": describe_figures(parse_aggregation(bare, catalog)), "plan": where,
            "elsewhere": elsewhere(request, "aggregate", question),
        }  # fmt: skip
    cursor = request.query_params.get("cursor")
    answer = await service.ask({**question, "explain": False, **({"cursor": cursor} if cursor else {})})
    returns = {"pipelines": "runs"}.get(question.get("return") or "stages", question.get("return") or "stages")
    table = Table(returns, answer["rows"], question, catalog)
    return {
        "answer": answer,
        "heads": table.heads,
        "rows": table.rows,
        "returns": returns,
        "reading": describe(parse(bare, catalog)),
        "plan": where,
        "elsewhere": elsewhere(request, "query", question),
        "question_json": _in_script(bare),
    }


async def _saved(service: Service, request: Request, name: str) -> dict[str, Any]:
    """A saved question with the parameters of the address put in, or their defaults."""
    found = await saved_questions.find(service.store, service.project, name)
    texts = {each: request.query_params.get(f"p.{each}", "") for each in found.parameters}
    given = {each: _value_of(found.parameters[each], text) for each, text in texts.items() if text != ""}
    shown = {"opened": found, "parameters_given": texts, "text": ""}
    missing = [each for each, parameter in found.parameters.items() if parameter.default is None and each not in given]
    return shown if missing else {**shown, "text": _pretty(found.ask(given))}


def _value_of(parameter: Parameter, text: str) -> Any:
    """What somebody wrote into a field for a parameter: a text as it is, anything else as JSON."""
    if parameter.type == "string":
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text  # of a time that is how it is written; of the others it is refused with the parameter's name


def _parsed(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        place = malformed(text, error)
        raise QueryError(
            f"The question is not JSON: {error.msg}.",
            code="bad_json",
            path=f"line {place.line}, column {place.column}",
        ) from error
    except (RecursionError, ValueError):
        raise QueryError("The question is nested too deep.", code="too_large") from None
    if not isinstance(found, dict):
        raise QueryError("A question is a JSON object.", hint='It begins with {"stage": … or {"pipeline": …')
    return found


def _refused(text: str, error: QueryError) -> dict[str, Any]:
    """What is wrong, where it stands in the text, and the text with the nearest right word in its place."""
    cause = error.__cause__
    if isinstance(cause, json.JSONDecodeError):
        place: Place | None = malformed(text, cause)
    else:
        place = locate(text, error.path, key_only=error.code.startswith("unknown_"))
    mended = None
    found = _WRONG_WORD.search(error.hint or "")
    if place is not None and found is not None:
        mended = _mended(text, place, (error.path or "").rpartition(".")[2], found[1])
    marked = None
    if place is not None:
        marked = {
            "start": place.start, "end": place.end, "line": place.line, "column": place.column,
            "before": _visible(_tail(text[: place.start])), "at": _visible(text[place.start : place.end]) or " ",
            "after": _visible(_head(text[place.end :])),
        }  # fmt: skip
    return {"problem": error.as_dict(), "place": marked, "mended": mended}


def _mended(text: str, place: Place, wrong: str, right: str) -> dict[str, str] | None:
    stretch = text[place.start : place.end]
    found = re.match(r'"((?:[^"\\]|\\.)*)"', stretch)
    word = found[1] if found else wrong
    if not word or word == right:
        return None
    # The word may be the key, or the value behind it.
    replaced = stretch.replace(json.dumps(word), json.dumps(right), 1)
    if found and right not in replaced:
        return None
    return {"right": right, "text": text[: place.start] + replaced + text[place.end :]}


def _visible(text: str) -> str:
    """A text with its lines kept, and its control and direction marks written out."""
    return "\n".join(map(visible, text.split("\n")))


def _tail(text: str, lines: int = 3) -> str:
    return "\n".join(text.split("\n")[-lines:])[-400:]


def _head(text: str, lines: int = 3) -> str:
    return "\n".join(text.split("\n")[:lines])[:400]


def is_aggregation(question: Mapping[str, Any]) -> bool:
    """Whether figures are asked for, and not rows."""
    return any(name in question for name in AGGREGATE_KEYS if name not in QUESTION_KEYS)


def elsewhere(request: Request, form: str, question: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The same question with ``curl``, on the command line and in Python: a word, a title, the text."""
    server = str(request.base_url).rstrip("/")
    compact = _compact(question)
    curl = f"curl -s {server}/v1/{form} -H 'Content-Type: application/json' -d {shlex.quote(compact)}"
    command = f"xray {form} --server {server} {shlex.quote(compact)}"
    python = (
        f"from xray.client import Client\n\nwith Client({server!r}) as client:\n"
        f"    answer = client.{form}({question!r})\nfor row in answer['rows']:\n    print(row)"
    )
    return [("curl", "curl", curl), ("cli", "Command line", command), ("python", "Python", python)]


def _compact(value: Any) -> str:
    """JSON in which people can read their own letters, but for marks that could mislead them."""
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isprintable() else json.dumps(value)


def _pretty(value: Any) -> str:
    """JSON over several lines where it is long, as people write it."""
    flat = _compact(value)
    if len(flat) <= 60 or not isinstance(value, dict):
        return flat
    inner = ",\n".join(f"  {json.dumps(key)}: {_compact(each)}" for key, each in value.items())
    return f"{{\n{inner}\n}}"


async def _words(service: Service, catalog: MetricCatalog) -> dict[str, Any]:
    """What the editor completes: keys of questions, fields by part, metrics, operators, and the values of a few."""
    metrics = [metric for declared in (await service.declarations()).values() for metric in declared]
    common = [found for word in catalog.words() if (found := catalog.declaration(word)) is not None]
    labels = [label for label in (await choices(service)).labels if len(label) <= 80][:100]
    return {
        "keys": _COMPLETED_KEYS,
        "pipeline": sorted(RUN_FIELDS),
        "stage": sorted(name for name in STAGE_FIELDS if name not in ("metrics", "pipeline")),
        "candidate": sorted({*CANDIDATE_FIELDS, *catalog.candidate_columns}),
        "metrics": metric_words([*common, *metrics]),
        "operators": FIELD_OPERATORS,
        "logical": LOGICAL_OPERATORS,
        "values": {
            "label": labels,
            "type": sorted(service.plugins.stage_types),
            "status": ["running", "success", "failure"],
            "verdict": ["passed", "failed", "selected"],
            "return": ["stages", "runs", "candidates"],
        },
    }


def _in_script(value: Any) -> Markup:
    """JSON that can stand inside a script element that is data."""
    text = msgspec.json.encode(value).decode()
    for character in ("<", ">", "&", "\u2028", "\u2029"):
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704 - nothing that could end the element is left in it
