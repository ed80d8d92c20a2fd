"""Compilers with a fault in them: the suite notices each.

A compiler may let through too much where it cannot know, and has to be exact on the schema's fields and metrics; it
never may lose what matches. The faults are made here: every way out of a compiler's functions lets nothing through, or
everything; every word is left out of the lists of words that it looks at; and conditions are misread before they are
compiled. What notices them is a quick part of what the stores' own tests ask.
"""

from __future__ import annotations

import ast as python
import asyncio
import inspect
import itertools
import random
import sys
import types
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from tests.mongodb import Databases
from tests.server.stores.test_sqlite_conditions import JSON, METRICS, SCALARS, has_strange_values, sample_of_stages
from xray_server.pages import paginate
from xray_server.query import ast
from xray_server.query.evaluate import matches
from xray_server.stores.base import Store, WriteBatch
from xray_server.stores.mongo import MongoStore
from xray_server.stores.mongo import compiler as mongo_compiler
from xray_server.stores.mongo import filters as mongo_filters
from xray_server.stores.sqlite import SqliteStore, sql
from xray_server.stores.sqlite import compiler as sqlite_compiler
from xray_server.testing_data import PROJECT, RUN_CONDITIONS, STAGE_CONDITIONS, ids, sample_columns, sample_runs
from xray_server.testing_data import tests_on as conditions_on

Run = Callable[[Awaitable[Any]], Any]

RUNS = sample_runs()
STAGES = sample_of_stages()
CANDIDATES = {stage_id: sample_columns(2 + n % 5).slice(n % 3, 2 + n % 5) for n, stage_id in enumerate(STAGES)}
VALUES: tuple[Any, ...] = (
    *("filtering", "stage 3", "pipeline 1", "ads", "a", "t1", "", 0, 1, 2, 2.5, 0.4, 7, -1, None, True),
    *([], ["a", "t1"], {"n": 1}, 2**70, "\ud800"),
)
OF_FREE_FORM = (*JSON, *METRICS[3:])
TIMES = tuple(1_800_000_000_000 + step for step in (0, 3, 3.5, 5))


def random_conditions(references: Sequence[ast.Reference], count: int) -> list[ast.Condition]:
    """Tests with any operator and value, some of them negated."""
    drawn = random.Random(7)
    made: list[ast.Condition] = []
    for number in range(count):
        operator: ast.Operator = ast.Compare(drawn.choice(("eq", "gt", "gte", "lt", "lte")), drawn.choice(VALUES))
        if number % 4 == 0:
            operator = ast.In(tuple(drawn.choice(VALUES) for _ in range(drawn.randint(0, 3))))
        elif number % 9 == 0:
            operator = ast.Exists(drawn.random() < 0.5)
        test = ast.Test(drawn.choice(references), operator)
        made.append(ast.Not(test) if number % 3 == 0 else test)
    return made


OF_TAGS = tuple(
    condition
    for operator in (
        *(ast.Compare(op, value) for op in ("eq", "gt", "gte", "lt", "lte") for value in ("a", "t1", None)),  # type: ignore[arg-type]
        *(ast.In(("a", "t1")), ast.Exists(wanted=True), ast.Exists(wanted=False)),
    )
    for condition in (ast.Test(ast.Field(("tags",)), operator), ast.Not(ast.Test(ast.Field(("tags",)), operator)))
)
EXACT_RUNS = (*RUN_CONDITIONS[::2], *OF_TAGS)
EXACT_STAGES = (
    *STAGE_CONDITIONS,
    *conditions_on(ast.Field(("pipeline", "started_at")), TIMES),
    *(each for each in random_conditions(SCALARS + METRICS[:3], 150) if not has_strange_values(each)),
    ast.Test(ast.Field(("id",)), ast.In(tuple(STAGES)[2:5])),
    ast.Or((ast.Test(SCALARS[1], ast.Compare("eq", "scoring")), ast.Test(METRICS[0], ast.Compare("gt", 0.5)))),
    ast.And((ast.Test(SCALARS[1], ast.Compare("eq", "scoring")), ast.Test(METRICS[0], ast.Compare("gt", 0.5)))),
)
OPEN = tuple(random_conditions(OF_FREE_FORM, 250)) + tuple(
    ast.Test(ast.Field(("metadata", "team")), operator)
    for operator in (ast.Compare("eq", "ads"), ast.Compare("eq", "a"), ast.In(("ads", "x")), ast.In(("ads", None)))
)
OPEN += tuple(
    ast.Test(ast.Field(("metadata", key)), ast.Compare("eq", value)) for key, value in (('a"b', "a"), ("", "t1"))
)
OF_CANDIDATES: tuple[ast.Condition, ...] = tuple(
    ast.Test(ast.Field((name,)), operator)
    for name, values in (
        ("candidate_id", ("candidate 2", "candidate 0", "x")),
        ("reason_label", ("too_dear",)),
        ("score", (0.125, 0.25, -1)),
        ("verdict", ("failed",)),
    )
    for value in values
    for operator in (*(ast.Compare(op, value) for op in ("eq", "gt", "gte", "lt", "lte")), ast.In((value, "y")))
)
COMBINED_CANDIDATES = tuple(
    combine((one, other))
    for one, other in zip(OF_CANDIDATES, (*OF_CANDIDATES[11:], *OF_CANDIDATES[:11]), strict=True)
    for combine in (ast.And, ast.Or)
)


@dataclass(frozen=True)
class Check:
    """A scan, and what it has to find.

    Args:
        scan: The scan.
        expected: The ids of what the evaluator says matches.
        exact: Whether nothing else may be found.
    """

    scan: ast.Scan
    expected: tuple[str, ...]
    exact: bool


def of_stages(condition: ast.Condition, *, exact: bool) -> Check:
    expected = (stage["id"] for stage in STAGES.values() if matches(condition, stage))
    return Check(ast.Scan("stages", stage=condition), tuple(expected), exact)


def of_runs(condition: ast.Condition) -> Iterator[Check]:
    """Asked of the runs, and where stages have a copy of what it is about, of these."""
    expected = tuple(run["id"] for run in RUNS.values() if matches(condition, run))
    yield Check(ast.Scan("runs", pipeline=condition), expected, exact=True)
    if is_copied(condition):
        expected = tuple(stage["id"] for stage in STAGES.values() if matches(condition, copied(stage)))
        yield Check(ast.Scan("stages", pipeline=condition), expected, exact=True)


def of_candidates(condition: ast.Condition) -> Check:
    expected = (
        stage_id
        for stage_id, columns in CANDIDATES.items()
        if any(matches(condition, candidate) for candidate in columns.rows())
    )
    return Check(ast.Scan("stages", candidate=condition), tuple(expected), exact=False)


def is_copied(condition: ast.Condition) -> bool:
    """Whether a condition on a run is about what its stages have too."""
    inner = condition.condition if isinstance(condition, ast.Not) else condition
    assert isinstance(inner, ast.Test)
    assert isinstance(inner.reference, ast.Field)
    return inner.reference.path[0] in ("id", "key", "label", "version", "started_at")


def copied(stage: dict[str, Any]) -> dict[str, Any]:
    return {"id": stage["run_id"], **stage["pipeline"]}


CHECKS = [
    *(of_stages(condition, exact=True) for condition in EXACT_STAGES),
    *(of_stages(condition, exact=False) for condition in OPEN),
    *(check for condition in EXACT_RUNS for check in of_runs(condition)),
    *map(of_candidates, (*OF_CANDIDATES, *COMBINED_CANDIDATES)),
]
random.Random(7).shuffle(CHECKS)
"""In no order, so that a fault is soon found, whatever it is in."""


async def suite(store: Store, checks: Iterable[Check] = CHECKS) -> None:
    """Hold what a store finds to what the evaluator says, of questions that say every kind of thing."""
    for check in checks:
        found = ids(await store.scan(PROJECT, check.scan))
        assert tuple(found) == check.expected if check.exact else set(check.expected) <= set(found), check.scan


async def fill(store: Store) -> Store:
    batch = WriteBatch(runs=sample_runs(), stages=sample_of_stages())
    for stage_id, columns in CANDIDATES.items():
        batch.pages += paginate(STAGES[stage_id]["run_id"], stage_id, 1, columns)
    await store.open()
    await store.write(PROJECT, batch)
    return store


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """What runs a coroutine in the event loop of the stores."""
    with asyncio.Runner() as runner:
        yield runner.run  # type: ignore[misc]  # what it is given are coroutines


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Iterator[Store]:
    """A SQLite store with the sample."""
    store = run(fill(SqliteStore(tmp_path_factory.mktemp("mutants") / "xray.sqlite3")))
    yield store
    run(store.close())


@pytest.fixture(scope="module")
def mongodb(tmp_path_factory: pytest.TempPathFactory, mongodb_uri: str, run: Run) -> Iterator[Store]:
    """A MongoDB store with the sample."""
    databases = Databases(mongodb_uri)
    store = run(fill(MongoStore(databases.url(tmp_path_factory.mktemp("mutants")))))
    yield store
    run(store.close())
    databases.drop()


# --- faults within a compiler -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Compiler:
    """A store's compiler.

    Args:
        kind: The store.
        module: Where it is.
        nothing: The condition that lets nothing through.
        everything: The condition that lets everything through.
        bounds: What its functions return that know a condition in part.
        conditions: What its functions return that let pages through, by the word in their annotation.
    """

    kind: str
    module: types.ModuleType
    nothing: Any
    everything: Any
    bounds: Any
    conditions: str


COMPILERS = {
    "sqlite": Compiler("sqlite", sqlite_compiler, sql.FALSE, sql.TRUE, sql.Bounds, "Sql"),
    "mongodb": Compiler(
        "mongodb", mongo_compiler, mongo_filters.FALSE, mongo_filters.TRUE, mongo_filters.Bounds, "Filter"
    ),
}
PAGE_FUNCTIONS = ("page_condition", "page_filter", "_mentions", "_reaches")
"""Functions that return a condition on pages; others with such an annotation return parts of one."""


class Rewriter(python.NodeTransformer):
    """Finds the places of a compiler's source where a fault can be, and has one of them, or each, looked at.

    Args:
        compiler: The compiler.
        wanted: The number of the fault to make; None means none, and that what comes out is told to ``fault``.
    """

    def __init__(self, compiler: Compiler, wanted: int | None) -> None:
        self._compiler = compiler
        self._wanted = wanted
        self._function: list[python.FunctionDef] = []
        self.places: list[str] = []

    def _number(self, what: str, node: python.expr | python.stmt) -> int:
        self.places.append(f"{self._function[-1].name}:{node.lineno}: {what}")
        return len(self.places) - 1

    def visit_FunctionDef(self, node: python.FunctionDef) -> python.FunctionDef:
        self._function.append(node)
        self.generic_visit(node)
        self._function.pop()
        return node

    def visit_Return(self, node: python.Return) -> python.Return:
        self.generic_visit(node)
        annotation = self._function[-1].returns
        returns = annotation.id if isinstance(annotation, python.Name) else None
        is_page = returns == self._compiler.conditions and self._function[-1].name in PAGE_FUNCTIONS
        value = node.value
        for kind in ("nothing", "everything") if returns == "Bounds" else ("nothing",) if is_page else ():
            number = self._number(f"{kind} comes out", node)
            if value is not None and self._wanted in (None, number):
                arguments: list[python.expr] = [python.Constant(number), python.Constant(kind), value]
                value = python.Call(python.Name("fault", python.Load()), arguments, [])
        return python.copy_location(python.Return(value), node)

    def visit_Compare(self, node: python.Compare) -> python.Compare:
        self.generic_visit(node)
        (words,) = node.comparators[-1:]
        # Of pages a forgotten word lets more through, which costs time and loses nothing.
        is_page = self._function and self._function[-1].name in PAGE_FUNCTIONS
        if self._function and not is_page and isinstance(node.ops[-1], python.In) and isinstance(words, python.Tuple):
            for place, word in enumerate(words.elts):
                if isinstance(word, python.Constant) and self._number(f"without {word.value!r}", node) == self._wanted:
                    words.elts = [*words.elts[:place], *words.elts[place + 1 :]]
                    break
        return node


def places_of(compiler: Compiler) -> list[str]:
    """Where a fault can be."""
    rewriter = Rewriter(compiler, None)
    rewriter.visit(python.parse(inspect.getsource(compiler.module)))
    return rewriter.places


def fault(compiler: Compiler, kind: str, found: Any) -> Any:
    """What comes out of a function with a fault, in place of what comes out of it."""
    none, everything = compiler.nothing, compiler.everything
    if not isinstance(found, compiler.bounds):
        return none
    if kind == "nothing":
        return compiler.bounds(none, none)
    # Only what the store has to be exact about is dropped: of the rest it may know nothing.
    return compiler.bounds(none, everything) if found.under == found.over else found


@contextmanager
def rewritten(compiler: Compiler, number: int | None, told: Callable[[int, str, Any], Any]) -> Iterator[None]:
    """The store's compiler with a fault in it, or with what comes out of it told."""
    tree = Rewriter(compiler, number).visit(python.parse(inspect.getsource(compiler.module)))
    changed = types.ModuleType(compiler.module.__name__)
    vars(changed).update(fault=told, __file__=compiler.module.__file__)
    exec(compile(python.fix_missing_locations(tree), str(compiler.module.__file__), "exec"), vars(changed))
    with pytest.MonkeyPatch.context() as patch:
        for name, module in list(sys.modules.items()):
            if name.startswith("xray_server.stores.") and module is not compiler.module:
                for word, value in list(vars(module).items()):
                    if value is compiler.module:
                        patch.setattr(module, word, changed)
                    elif getattr(value, "__module__", None) == compiler.module.__name__ and hasattr(changed, word):
                        patch.setattr(module, word, getattr(changed, word))
        yield


def survives(run: Run, store: Store, checks: Iterable[Check] = CHECKS) -> bool:
    try:
        run(suite(store, checks))
    except Exception:  # a database that refuses what the compiler made notices too
        return False
    return True


@pytest.mark.timeout(900)  # each fault is asked about again: some minutes where a database and its machine are slow
@pytest.mark.parametrize("kind", COMPILERS)
def test_every_fault_in_a_compiler_is_noticed(kind: str, run: Run, request: pytest.FixtureRequest) -> None:
    """Whatever way out of whichever function lets nothing through, or everything, or forgets a word."""
    store: Store = request.getfixturevalue(kind)
    compiler = COMPILERS[kind]
    makes_a_difference: dict[int, list[Check]] = {}
    """For each place, the checks in which a fault there changes what comes out: asked first, as they are to notice."""

    def tell(number: int, what: str, found: Any) -> Any:
        faulty = fault(compiler, what, found)
        if getattr(faulty, "over", faulty) != getattr(found, "over", found):
            makes_a_difference.setdefault(number, []).append(check)
        return found

    with rewritten(compiler, None, tell):
        for check in CHECKS:
            run(suite(store, [check]))
    unnoticed = []
    for number, place in enumerate(places_of(compiler)):
        if number in makes_a_difference or "without" in place:
            first = makes_a_difference.get(number, [])
            with rewritten(compiler, number, lambda _, what, found: fault(compiler, what, found)):
                if survives(run, store, itertools.chain(first, CHECKS)):
                    unnoticed.append(place)
    assert unnoticed == [], "\n".join(unnoticed)
    assert len(makes_a_difference) > 30


# --- conditions that are misread --------------------------------------------------------------------------------

Misread = Callable[[ast.Test], ast.Condition]


def swapped(one: str, other: Any) -> Misread:
    def misread(test: ast.Test) -> ast.Condition:
        operator = test.operator
        if isinstance(operator, ast.Compare) and operator.op == one:
            return replace(test, operator=ast.Compare(other, operator.value))
        return test

    return misread


def moved(step: float) -> Misread:
    def misread(test: ast.Test) -> ast.Condition:
        operator = test.operator
        is_number = isinstance(operator, ast.Compare) and type(operator.value) in (int, float)
        return replace(test, operator=replace(operator, value=operator.value + step)) if is_number else test

    return misread


def without_the_first(test: ast.Test) -> ast.Condition:
    operator = test.operator
    return replace(test, operator=ast.In(operator.values[1:])) if isinstance(operator, ast.In) else test


def null_is_not_missing(test: ast.Test) -> ast.Condition:
    if test.operator == ast.Compare("eq", None):
        return ast.And((test, ast.Test(test.reference, ast.Exists(wanted=True))))
    return test


def there_is_turned(test: ast.Test) -> ast.Condition:
    operator = test.operator
    return replace(test, operator=ast.Exists(not operator.wanted)) if isinstance(operator, ast.Exists) else test


def in_another_case(test: ast.Test) -> ast.Condition:
    operator = test.operator
    is_text = isinstance(operator, ast.Compare) and isinstance(operator.value, str)
    return replace(test, operator=replace(operator, value=operator.value.upper())) if is_text else test


MISREADINGS: dict[str, Misread] = {
    "above is at least": swapped("gt", "gte"),
    "at least is above": swapped("gte", "gt"),
    "below is at most": swapped("lt", "lte"),
    "at most is below": swapped("lte", "lt"),
    "equal is at least": swapped("eq", "gte"),
    "above is below": swapped("gt", "lt"),
    "bounds are too high": moved(1),
    "bounds are too low": moved(-0.1),
    "the first of several is left out": without_the_first,
    "null is not missing": null_is_not_missing,
    "there is turned": there_is_turned,
    "in another case": in_another_case,
}


def misread(condition: ast.Condition, how: Misread) -> ast.Condition:
    match condition:
        case ast.And(conditions) | ast.Or(conditions):
            return type(condition)(tuple(misread(inner, how) for inner in conditions))
        case ast.Not(inner):
            return ast.Not(misread(inner, how))
        case ast.Test():
            return how(condition)


def only_the_first(condition: ast.Condition) -> ast.Condition:
    match condition:
        case ast.And((first, *_)) | ast.Or((first, *_)):
            return only_the_first(first)
        case ast.Not(inner):
            return ast.Not(only_the_first(inner))
    return condition


def never_not(condition: ast.Condition) -> ast.Condition:
    match condition:
        case ast.And(conditions) | ast.Or(conditions):
            return type(condition)(tuple(map(never_not, conditions)))
        case ast.Not(inner):
            return never_not(inner)
    return condition


def or_for_and(condition: ast.Condition) -> ast.Condition:
    match condition:
        case ast.And((_, _, *_) as conditions):
            return ast.Or(tuple(conditions))
    return condition


class Misreader:
    """A store whose compiler takes every condition for another one.

    Args:
        store: The store.
        change: What it takes a condition for.
        what: The part of a scan whose conditions it misreads.
    """

    def __init__(self, store: Store, change: Callable[[ast.Condition], ast.Condition], what: str | None) -> None:
        self._store = store
        self._change = change
        self._what = what

    def misread(self, scan: ast.Scan) -> ast.Scan:
        """What it takes a scan for."""
        if self._what is None or self._what == "stage":
            scan = replace(scan, stage=self._change(scan.stage))
        if self._what is None or self._what == "pipeline":
            scan = replace(scan, pipeline=self._change(scan.pipeline))
        if scan.candidate is not None and self._what == "candidate":
            scan = replace(scan, candidate=self._change(scan.candidate))
        return scan

    async def scan(self, project: str, scan: ast.Scan) -> Any:
        return await self._store.scan(project, self.misread(scan))

    def misread_checks(self) -> Iterator[Check]:
        """The checks that it takes for others: no other can notice."""
        return (check for check in CHECKS if self.misread(check.scan) != check.scan)


CHANGES: dict[str, Callable[[ast.Condition], ast.Condition]] = {
    **{name: lambda condition, how=how: misread(condition, how) for name, how in MISREADINGS.items()},  # type: ignore[misc]
    "the first of a list of conditions is all": only_the_first,
    "not is left out": never_not,
    "or for and": or_for_and,
    "no condition at all": lambda _: ast.EVERYTHING,
    "nothing ever holds": lambda _: ast.NOTHING,
}
OF_PAGES = {
    "sqlite": ("above is below", "bounds are too high", "in another case", "nothing ever holds"),
    "mongodb": ("the first of several is left out", "in another case", "nothing ever holds"),
}
"""What makes a compiler lose pages that match; the rest only lets through more. MongoDB's has no bounds on scores."""


@pytest.mark.parametrize("kind", COMPILERS)
def test_every_misread_condition_is_noticed(kind: str, run: Run, request: pytest.FixtureRequest) -> None:
    """On stages, on runs, and where it loses something on candidates."""
    store: Store = request.getfixturevalue(kind)
    cases = [(None, name) for name in CHANGES]
    cases += [
        ("pipeline", name) for name in CHANGES if name not in ("or for and", "the first of a list of conditions is all")
    ]
    cases += [("candidate", name) for name in OF_PAGES[kind]]
    misreaders = {(what, name): Misreader(store, CHANGES[name], what) for what, name in cases}
    unnoticed = [
        case
        for case, faulty in misreaders.items()
        if survives(run, faulty, faulty.misread_checks())  # type: ignore[arg-type]
    ]
    assert unnoticed == []


def test_stores_that_misread_are_otherwise_as_they_were(sqlite: Store, run: Run) -> None:
    """Nothing but the misreading is noticed."""
    assert survives(run, Misreader(sqlite, lambda condition: condition, None))  # type: ignore[arg-type]
