"""Answers from a naive store are those of brute force, whatever the page size and the budgets."""

from __future__ import annotations

import asyncio
import uuid
from functools import cmp_to_key
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.judge import judge
from tests.server.query.catalogs import catalog
from tests.server.query.memory_store import MemoryStore, comparison, sort_value
from xray.stage_types.base import Columns
from xray_server.pages import CandidatePage, paginate
from xray_server.query import ast
from xray_server.query.cursor import encode_cursor
from xray_server.query.narrowing import concerns_only_pipeline, necessary_values
from xray_server.query.parser import parse, parse_condition
from xray_server.query.run import Answer, answer

CATALOG = catalog()
IDS = [str(uuid.UUID(int=0x0190 << 112 | 7 << 76 | 2 << 62 | number)) for number in range(100)]
PIPELINE = ("id", "key", "label", "version", "environment", "started_at")


def pages_of(run_id: str, stage_id: str, rows: list[dict[str, Any]]) -> list[CandidatePage]:
    with mock.patch("xray_server.pages.PAGE_SIZE", 2):
        return paginate(run_id, stage_id, None, Columns.from_rows(rows))


@st.composite
def stores(draw: st.DrawFn) -> MemoryStore:
    runs, stages, pages = [], [], {}
    ids = iter(draw(st.permutations(IDS)))
    for _ in range(draw(st.integers(0, 5))):
        run = {
            "id": next(ids),
            "label": draw(st.sampled_from(["a", "b"])),
            "started_at": draw(st.sampled_from([1, 2])),
            "status": draw(st.sampled_from(["success", "failure"])),
            "metadata": {"tier": draw(st.sampled_from([1, [1, 2], None]))},
        }
        runs.append(without_nones(run))
        for _ in range(draw(st.integers(0, 4))):
            metrics = {"label_share": {"x.y": 0.5}} | draw(
                st.fixed_dictionaries({}, optional={"fail_ratio": st.sampled_from([0, 0.5, 1])})
            )
            stage = {
                "id": next(ids),
                "run_id": run["id"],
                "name": draw(st.sampled_from(["s", "t", None])),
                "type": draw(st.sampled_from(["filtering", "scoring"])),
                "started_at": draw(st.sampled_from([1, 2, None])),
                "metrics": metrics,
                "metadata": {"k": draw(st.sampled_from([0, 1]))},
                "pipeline": {name: run[name] for name in PIPELINE if name in run},
            }
            stages.append(without_nones(stage))
            rows = [
                {
                    "candidate_id": draw(st.sampled_from(["c1", "c2", "c3"])),
                    "verdict": draw(st.sampled_from(["passed", "failed"])),
                    "reason_label": draw(st.sampled_from(["r1", "r2", None])),
                    "data": {"price": draw(st.sampled_from([1, 60]))},
                }
                for _ in range(draw(st.integers(0, 5)))
            ]
            pages[stage["id"]] = pages_of(run["id"], stage["id"], rows)
    return MemoryStore(runs, stages, pages)


def without_nones(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if value is not None}


def filters(*members: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    one = st.sampled_from(members)
    return st.one_of(
        st.just({}),
        one,
        st.lists(one, min_size=1, max_size=2).map(lambda inner: {"$or": inner}),
        st.lists(one, min_size=1, max_size=2).map(lambda inner: {"$nor": inner}),
        st.lists(one, min_size=2, max_size=2).map(lambda inner: {"$and": inner}),
    )


pipelines = filters({"label": "a"}, {"started_at": {"$gt": 1}}, {"status": "failure"}, {"metadata.tier": 2})
stage_filters = filters(
    {"type": "filtering"},
    {"metrics.fail_ratio": {"$gte": 0.5}},
    {"name": None},
    {"metadata.k": 1},
    {"pipeline.label": "b"},
)
candidate_filters = st.one_of(
    st.none(),
    filters(
        {"candidate_id": "c1"},
        {"candidate_id": {"$in": ["c2", "c3"]}},
        {"reason_label": "r1"},
        {"reason_label": {"$in": ["r2", None]}},
        {"reason_label": None},
        {"data.price": {"$lt": 50}, "reason_label": "r2"},
        {"seq": {"$gte": 2}},
        {"verdict": {"$ne": "failed"}},
    ),
)
STAGE_SORTS = [{}, {"name": 1}, {"metrics.fail_ratio": -1}, {"pipeline.started_at": -1, "type": 1}, {"id": -1}]
RUN_SORTS = [{}, {"label": 1}, {"status": -1, "started_at": 1}]


@st.composite
def questions(draw: st.DrawFn) -> dict[str, Any]:
    returns = draw(st.sampled_from(["stages", "runs", "candidates"]))
    return {
        "pipeline": draw(pipelines),
        "stage": draw(stage_filters),
        "stages": draw(st.one_of(st.none(), st.none(), st.lists(stage_filters, min_size=1, max_size=3))),
        "candidate": draw(candidate_filters),
        "return": returns,
        "sort": draw(st.sampled_from(RUN_SORTS if returns == "runs" else STAGE_SORTS)),
        "limit": draw(st.sampled_from([1, 2, 3, 1000])),
    }


def brute_force(store: MemoryStore, question: dict[str, Any], sort: tuple[ast.SortKey, ...]) -> list[Any]:
    """Ids of all rows in order; of candidates the stage's id and the place."""
    runs = {run["id"]: run for run in store.documents["runs"]}
    asked = question["candidate"]
    found: list[Any] = []
    several = question["stages"] or []
    # With 'stages' alone, the stages of the answer are those for which one of its conditions holds.
    of_row = {"$or": several} if several and not question["stage"] and asked is None else question["stage"]

    def has_all(run_id: str) -> bool:
        own = [stage for stage in store.documents["stages"] if stage["run_id"] == run_id]
        return all(any(judge(each, stage) for stage in own) for each in several)

    def places(stage: dict[str, Any]) -> list[int]:
        rows = [row for page in store.all_pages[stage["id"]] for row in page.columns().rows()]
        return [seq for seq, row in enumerate(rows) if judge(asked or {}, row | {"seq": seq})]

    def holds(stage: dict[str, Any]) -> bool:
        return judge(question["stage"], stage) and (asked is None or bool(places(stage)))

    def ordered(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
        compare = comparison(sort)
        keys = {d["id"]: tuple(sort_value(d, key.reference) for key in sort) for d in documents}
        return sorted(documents, key=cmp_to_key(lambda a, b: compare(keys[a["id"]], keys[b["id"]])))

    if question["return"] == "runs":
        for run in ordered(store.documents["runs"]):
            own = [stage for stage in store.documents["stages"] if stage["run_id"] == run["id"]]
            none_asked = not question["stage"] and asked is None
            is_one = none_asked or any(holds(stage) for stage in own)
            if judge(question["pipeline"], run) and is_one and has_all(run["id"]):
                found.append(run["id"])
        return found
    for stage in ordered(store.documents["stages"]):
        if not judge(question["pipeline"], runs[stage["run_id"]]) or not judge(of_row, stage):
            continue
        if not has_all(stage["run_id"]):
            continue
        if question["return"] == "candidates":
            found += [(stage["id"], seq) for seq in places(stage)]
        elif holds(stage):
            found.append(stage["id"])
    return found


async def all_answers(
    store: MemoryStore, question: dict[str, Any], page_budget: int, document_budget: int
) -> list[Answer]:
    answers = []
    cursor = None
    while True:
        parsed = parse({**question, "cursor": cursor}, CATALOG)
        got = await answer(store, "default", parsed, page_budget=page_budget, document_budget=document_budget)
        answers.append(got)
        if got.next is None:
            return answers
        assert len(answers) < 1000, "it never ends"
        cursor = encode_cursor(parsed, got.next)


@settings(max_examples=1500, deadline=None)
@given(
    store=stores(),
    question=questions(),
    page_budget=st.sampled_from([1, 2, 1000]),
    document_budget=st.sampled_from([1, 3, 100_000]),
    batch=st.sampled_from([1, 2, 500]),
)
def test_the_pages_together_are_what_brute_force_finds(
    store: MemoryStore, question: dict[str, Any], page_budget: int, document_budget: int, batch: int
) -> None:
    with (
        mock.patch("xray_server.query.run.MAX_BATCH", batch),
        mock.patch("xray_server.query.run._RUNS_AT_ONCE", batch),
    ):
        answers = asyncio.run(all_answers(store, question, page_budget, document_budget))
    rows = [row for got in answers for row in got.rows]
    is_candidates = question["return"] == "candidates"
    names = [(row["stage_id"], row["seq"]) if is_candidates else row["id"] for row in rows]
    assert names == brute_force(store, question, parse(question, CATALOG).sort)
    for got in answers:
        coverage = got.coverage
        assert coverage.matched == len(got.rows) <= question["limit"]
        assert coverage.complete is (got.next is None or len(got.rows) == question["limit"])
        if is_candidates:
            assert coverage.pages_opened <= page_budget
    if page_budget == 1000 and document_budget == 100_000:
        assert all(got.coverage.complete for got in answers)
        assert all(len(got.rows) == question["limit"] for got in answers[:-1])


def one_stage(rows: list[dict[str, Any]], **more: Any) -> MemoryStore:
    run = {"id": IDS[0], "label": "a", "started_at": 1}
    stage = {"id": IDS[1], "run_id": IDS[0], "name": "s", "type": "filtering", "pipeline": dict(run), **more}
    return MemoryStore([run], [stage], {IDS[1]: pages_of(IDS[0], IDS[1], rows)})


def ask(store: MemoryStore, question: dict[str, Any], **budgets: int) -> Answer:
    return asyncio.run(answer(store, "default", parse(question, CATALOG), **budgets))


ROWS = [{"candidate_id": f"c{i}", "verdict": "failed", "reason_label": f"r{i // 2}", "own_column": i} for i in range(6)]


def test_a_candidate_says_where_it_is_from() -> None:
    got = ask(one_stage(ROWS), {"candidate": {"own_column": 4}, "return": "candidates"})
    assert got.rows == [
        {
            "candidate_id": "c4",
            "seq": 4,
            "verdict": "failed",
            "reason_label": "r2",
            "own_column": 4,
            "stage_id": IDS[1],
            "stage_name": "s",
            "stage_type": "filtering",
            "run_id": IDS[0],
            "label": "a",
        }
    ]
    assert got.next is None


@pytest.mark.parametrize(
    ("candidate", "opened"),
    [
        ({"candidate_id": "c3"}, 1),
        ({"reason_label": {"$in": ["r0", "r2"]}}, 2),
        ({"reason_label": None}, 3),
        ({"$or": [{"candidate_id": "c3"}, {"candidate_id": "c5"}]}, 2),
        ({"$or": [{"candidate_id": "c3"}, {"verdict": "failed"}]}, 3),
        ({"candidate_id": "c3", "reason_label": "r2"}, 0),
        ({"candidate_id": {"$in": []}}, 0),
    ],
)
def test_pages_that_cannot_match_stay_closed(candidate: dict[str, Any], opened: int) -> None:
    got = ask(one_stage(ROWS), {"candidate": candidate, "return": "candidates"})
    assert got.coverage.pages_opened == opened


@pytest.mark.parametrize(
    ("capture", "expected"),
    [
        ({"seen": 6, "kept": 6}, 0),
        ({"seen": 9, "kept": 6}, 1),
        ({"seen": 9, "kept": 9}, 1),  # three of them never came
        ({"mode": "full"}, 0),
        ({"seen": "many", "kept": True}, 0),
        (None, 0),
        ("nonsense", 0),
    ],
)
@pytest.mark.parametrize("returns", ["stages", "runs", "candidates"])
def test_coverage_counts_stages_without_all_their_candidates(capture: Any, expected: int, returns: str) -> None:
    question = {"candidate": {"verdict": "selected"}, "return": returns}
    assert ask(one_stage(ROWS, capture=capture), question).coverage.without_all_candidates == expected


def test_coverage_says_nothing_of_candidates_where_none_are_asked_about() -> None:
    got = ask(one_stage(ROWS, capture={"seen": 9, "kept": 6}), {})
    assert got.coverage.as_dict() == {
        "matched": 1,
        "scanned": 1,
        "pages_opened": 0,
        "without_all_candidates": 0,
        "complete": True,
    }


def test_a_spent_budget_is_said_and_can_be_gone_on_from() -> None:
    store = one_stage(ROWS)
    question = {"candidate": {"own_column": 5}, "return": "candidates"}
    got = ask(store, question, page_budget=2)
    assert (got.rows, got.coverage.complete) == ([], False)
    assert got.next is not None
    cursor = encode_cursor(parse(question, CATALOG), got.next)
    assert [row["seq"] for row in ask(store, question | {"cursor": cursor}).rows] == [5]


def test_an_empty_store() -> None:
    for returns in ("stages", "runs", "candidates"):
        got = ask(MemoryStore([], [], {}), {"candidate": {}, "return": returns})
        assert (got.rows, got.next, got.coverage.complete) == ([], None, True)


def test_a_stage_that_vanished_between_two_pages_is_passed_over() -> None:
    store = one_stage(ROWS)
    question = parse({"return": "candidates", "limit": 2}, CATALOG)
    first = asyncio.run(answer(store, "default", question))
    cursor = encode_cursor(question, first.next or ())
    store.documents["stages"].clear()
    assert ask(store, {"return": "candidates", "cursor": cursor}).rows == []


def test_the_runs_are_read_only_where_the_stage_does_not_have_the_field() -> None:
    store = one_stage(ROWS)
    ask(store, {"pipeline": {"label": "a", "started_at": 1}})
    assert [scan.of for scan in store.scans] == ["stages"]
    ask(store, {"pipeline": {"status": None}})
    assert [scan.of for scan in store.scans] == ["stages", "stages", "runs"]


def test_what_follows_from_a_condition() -> None:
    field = ast.Field(("reason_label",))

    def values(filter_: dict[str, Any]) -> Any:
        return necessary_values(parse_condition("candidate", filter_, CATALOG), field)

    assert values({"reason_label": "a"}) == {"a"}
    assert values({"reason_label": {"$in": ["a", "b"]}}) == {"a", "b"}
    assert values({"reason_label": {"$in": ["a", None]}}) is None
    assert values({"reason_label": None}) is None
    assert values({"reason_label": {"$ne": "a"}}) is None
    assert values({"reason_label": {"$gte": "a"}}) is None
    assert values({"$or": [{"reason_label": "a"}, {"reason_label": "b"}]}) == {"a", "b"}
    assert values({"$or": [{"reason_label": "a"}, {"score": 1}]}) is None
    assert values({"$and": [{"reason_label": "a"}, {"score": 1}]}) == {"a"}
    assert concerns_only_pipeline(parse_condition("pipeline", {"$nor": [{"label": "a"}, {"key": "b"}]}, CATALOG))
    assert not concerns_only_pipeline(
        parse_condition("pipeline", {"$nor": [{"label": "a"}, {"status": None}]}, CATALOG)
    )


def test_time_is_a_budget_too() -> None:
    """A search without time left still gets one step further each time, and comes to its end."""
    store = one_stage(ROWS)
    question: dict[str, Any] = {"candidate": {"own_column": 5}, "return": "candidates"}
    seen, cursor = [], None
    for _ in range(10):
        parsed = parse(question | {"cursor": cursor}, CATALOG)
        got = asyncio.run(answer(store, "default", parsed, time_budget_s=0))
        seen.append((len(got.rows), got.coverage.pages_opened, got.coverage.complete))
        if got.next is None:
            break
        cursor = encode_cursor(parsed, got.next)
    assert seen == [(0, 1, False), (0, 1, False), (1, 1, False), (0, 0, True)]


@pytest.mark.parametrize("sort", [{"started_at": -1}, {"name": 1}, {"metrics.fail_ratio": -1}])
def test_what_comes_in_between_two_pages_neither_repeats_nor_hides_a_row(sort: dict[str, int]) -> None:
    """Every stage that was there at the first page comes exactly once, wherever others are put in."""
    stages = [
        {"id": IDS[n], "run_id": IDS[90], "name": "st"[n % 2], "started_at": n % 3, "metrics": {"fail_ratio": n / 7}}
        for n in range(9)
    ]
    store = MemoryStore([{"id": IDS[90]}], list(stages), {})
    found: list[str] = []
    cursor = None
    for step in range(20):
        parsed = parse({"sort": sort, "limit": 2, "cursor": cursor}, CATALOG)
        got = asyncio.run(answer(store, "default", parsed))
        found += [row["id"] for row in got.rows]
        if got.next is None:
            break
        cursor = encode_cursor(parsed, got.next)
        twin = {**stages[step % 9], "id": IDS[20 + step]}
        store.documents["stages"].insert(0, twin)
    assert len(found) == len(set(found))
    assert {stage["id"] for stage in stages} <= set(found)


def test_stages_of_several_conditions_are_those_that_satisfy_one() -> None:
    """With 'stages' alone the answer has, of the runs that satisfy all of it, the stages that satisfy some of it."""
    store = one_stage(ROWS)
    other = {"id": IDS[2], "run_id": IDS[0], "name": "t", "type": "scoring"}
    third = {"id": IDS[3], "run_id": IDS[0], "name": "u", "type": "raw"}
    store.documents["stages"] += [other, third]
    both = [{"type": "filtering"}, {"type": "scoring"}]
    assert {row["name"] for row in ask(store, {"stages": both}).rows} == {"s", "t"}
    assert [row["name"] for row in ask(store, {"stages": both, "stage": {"name": "u"}}).rows] == ["u"]
    assert [row["id"] for row in ask(store, {"stages": both, "return": "runs"}).rows] == [IDS[0]]
    assert ask(store, {"stages": [*both, {"type": "ranking"}]}).rows == []
    assert ask(store, {"stages": [*both, {"type": "ranking"}], "return": "runs"}).rows == []
