"""What the decorators record, and that they leave the user's code alone."""

from __future__ import annotations

import asyncio
import inspect
import logging
from typing import Annotated, Any

import pytest

import xray
from tests.sdk.recording import recording
from xray import Candidates, RawInput
from xray.delivery.memory import MemoryTransport
from xray.exceptions import DecoratorError, PluginError

PRODUCTS = [{"id": f"p{n}", "price": n} for n in range(6)]


@xray.pipeline("shop", id="request_id", version="7")
class Shop:
    def __init__(self, request_id: Any) -> None:
        self.request_id = request_id

    @xray.entrypoint
    def find(self, pool: list[dict[str, Any]], limit: int = 2) -> list[dict[str, Any]]:
        return self.rank(self.cheap(pool))[:limit]

    @xray.filtering_stage("cheap")
    def cheap(self, pool: Annotated[list[dict[str, Any]], Candidates("products")]) -> list[dict[str, Any]]:
        return [product for product in pool if product["price"] < 4]

    @xray.ranking_stage
    def rank(self, pool: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return sorted(pool, key=lambda product: -product["price"])

    @xray.entrypoint
    async def find_async(self, pool: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return self.rank(await self.cheap_async(pool))

    @xray.filtering_stage("cheap_async")
    async def cheap_async(self, pool: list[dict[str, Any]]) -> list[dict[str, Any]]:
        await asyncio.sleep(0)
        return self.cheap(pool)

    @xray.entrypoint
    def broken(self) -> None:
        self.explode()

    @xray.raw_stage("explode")
    def explode(self) -> None:
        raise KeyError("no such key")


def test_a_run_is_recorded_from_start_to_end():
    """Label, key, version, input, output and stage count of a decorated class."""
    with recording() as recorded:
        assert [p["id"] for p in Shop(42).find(PRODUCTS)] == ["p3", "p2"]
    start, *_, end = recorded.events
    assert (start["type"], end["type"]) == ("run.start", "run.end")
    assert start["run"] == end["run"]
    assert {name: start["run"][name] for name in ("label", "key", "version")} == {
        "label": "shop", "key": "42", "version": "7",
    }  # fmt: skip
    assert start["input"] == {"pool": PRODUCTS, "limit": 2}
    assert (end["status"], end["stage_count"], end["completeness"]) == ("success", 2, "complete")
    assert [p["id"] for p in end["output"]] == ["p3", "p2"]
    assert [(s["name"], s["stage_type"], s["order"], s["path"]) for s in recorded.stages] == [
        ("cheap", "filtering", 0, "cheap"),
        ("rank", "ranking", 1, "rank"),
    ]
    assert recorded.stage("cheap")["facts"]["candidates_from"] == "products"


def test_async_methods_are_recorded_with_nested_stages_below_their_parent():
    """A stage inside a stage has its parent's id and path; the coroutine stays one."""
    assert inspect.iscoroutinefunction(Shop.cheap_async)
    with recording() as recorded:
        result = asyncio.run(Shop("a").find_async(PRODUCTS))
    assert [p["id"] for p in result] == ["p3", "p2", "p1", "p0"]
    outer, inner = recorded.stage("cheap_async"), recorded.stage("cheap")
    assert inner["parent_id"] == outer["id"]
    assert inner["path"] == "cheap_async/cheap"
    assert "parent_id" not in outer
    assert recorded.metrics("cheap_async")["fail_ratio"] == pytest.approx(2 / 6)


def test_tasks_side_by_side_keep_their_runs_apart():
    """Two runs at once in one event loop."""

    async def both() -> None:
        await asyncio.gather(*(Shop(n).find_async(PRODUCTS) for n in range(5)))

    with recording() as recorded:
        asyncio.run(both())
    runs = {event["run"]["id"]: event["run"]["key"] for event in recorded.events}
    assert sorted(runs.values()) == ["0", "1", "2", "3", "4"]
    for run in runs:
        assert [s["name"] for s in recorded.stages if s["run"]["id"] == run] == ["cheap_async", "cheap", "rank"]


def test_an_exception_passes_untouched_and_is_recorded_where_it_began():
    """The user's exception is the same object; stage and run say failure and where."""
    with recording() as recorded, pytest.raises(KeyError, match="no such key") as caught:
        Shop(1).broken()
    assert caught.value.__context__ is None
    stage, end = recorded.stage("explode"), recorded.events[-1]
    assert stage["status"] == "failure"
    assert stage["error"] == {"type": "KeyError", "message": "'no such key'"}
    assert end["status"] == "failure"
    assert end["error"]["stage"] == "explode"


def test_functions_static_and_class_methods():
    """Whatever can be called can be decorated, on either side of staticmethod and classmethod."""

    class Tools:
        @xray.filtering_stage("inside")
        @staticmethod
        def inside(pool: list[int]) -> list[int]:
            return [n for n in pool if n > 1]

        @staticmethod
        @xray.filtering_stage("outside")
        def outside(pool: list[int]) -> list[int]:
            return [n for n in pool if n > 1]

        @classmethod
        @xray.filtering_stage("of_class")
        def of_class(cls, pool: list[int]) -> list[int]:
            return [n for n in pool if n > 1]

    @xray.pipeline("job")
    def job() -> list[int]:
        return Tools.inside([1, 2]) + Tools().outside([1, 2]) + Tools.of_class(pool=[1, 2])

    with recording() as recorded:
        assert job() == [2, 2, 2]
    assert [s["name"] for s in recorded.stages] == ["inside", "outside", "of_class"]
    for name in ("inside", "outside", "of_class"):
        assert {key: row["verdict"] for key, row in recorded.rows(name).items()} == {"1": "failed", "2": "passed"}


def test_a_stage_outside_of_a_run_opens_one():
    """Nothing but a stage decorator is already useful."""

    @xray.scoring_stage
    def score(pool: list[int]) -> list[float]:
        return [n / 2 for n in pool]

    with recording() as recorded:
        assert score([1, 2]) == [0.5, 1.0]
        Shop("k").cheap(PRODUCTS)
    starts = [event for event in recorded.events if event["type"] == "run.start"]
    assert [(e["run"]["label"], e["run"].get("key")) for e in starts] == [("score", None), ("shop", "k")]
    assert [event["type"] for event in recorded.events] == ["run.start", "stage", "run.end"] * 2


def test_repeated_stages_have_a_repeat_number():
    """The second call of a stage in a run is told from the first."""

    @xray.pipeline
    def twice() -> None:
        Shop(1).cheap(PRODUCTS)
        Shop(1).cheap(PRODUCTS)

    with recording() as recorded:
        twice()
    assert [s["path"] for s in recorded.stages] == ["cheap", "cheap#2"]
    assert recorded.events[0]["run"]["label"] == "twice"


def test_only_marked_inputs_where_any_is_marked():
    """RawInput picks what is recorded, under its name, whatever its size; without it, large values leave a marker."""

    @xray.raw_stage
    def marked(product: Annotated[list[int], RawInput("product")], secret: str) -> int:
        return 1

    @xray.raw_stage
    def unmarked(product: list[int], k: int = 3) -> int:
        return 1

    many = list(range(500))
    with recording() as recorded:
        marked(many, "s3cret")
        unmarked(many)
    assert recorded.stage("marked")["input"] == {"product": many}
    assert recorded.stage("unmarked")["input"] == {"product": "[xray: list of 500 items]", "k": 3}
    assert recorded.stage("unmarked")["capture"]["markers"] == [{"path": "input.product", "kind": "items", "size": 500}]


def test_disabled_records_nothing():
    """XRAY_ENABLED=0: the function is called and nothing else happens."""
    with recording(enabled=False) as recorded:
        assert [p["id"] for p in Shop(42).find(PRODUCTS)] == ["p3", "p2"]
    assert recorded.events == []
    assert xray.stats().recorded == 0


def test_signature_name_and_docstring_stay():
    """help(), inspect and frameworks see the user's function."""

    @xray.filtering_stage("named")
    def keep(pool: list[int], *, above: int = 1) -> list[int]:
        """Keep some."""
        return [n for n in pool if n > above]

    assert keep.__name__ == "keep"
    assert keep.__doc__ == "Keep some."
    assert str(inspect.signature(keep)) == "(pool: 'list[int]', *, above: 'int' = 1) -> 'list[int]'"


def test_a_wrong_field_warns_once_and_leaves_the_function_untouched(caplog: pytest.LogCaptureFixture):
    """Without strict mode a decorator problem is a warning with the nearest right word."""

    def keep(pool: list[int]) -> list[int]:
        return pool

    with caplog.at_level(logging.WARNING, "xray"):
        assert xray.stage("filtering", "keep", reson_label="x")(keep) is keep
    assert "Did you mean 'reason_label'?" in caplog.text


@pytest.mark.parametrize(
    ("decorate", "error"),
    [
        (lambda: xray.stage("filtering", "f", pased="x")(print), DecoratorError),
        (lambda: xray.stage("filtring", "f")(print), PluginError),
        (lambda: xray.filtering_stage("f", passed=1.5)(print), DecoratorError),  # type: ignore[call-overload]
        (lambda: xray.filtering_stage("f")(3), DecoratorError),  # type: ignore[type-var]
    ],
)
def test_strict_mode_raises(decorate: Any, error: type[Exception]):
    """With XRAY_STRICT=1 a decorator problem raises where it is made."""
    xray.configure(strict=True)
    with pytest.raises(error):
        decorate()


def test_arguments_are_not_changed_and_not_consumed():
    """Iterators among the arguments and results reach the user's code whole."""

    @xray.filtering_stage
    def lazy(pool: Any, more: Any) -> Any:
        return (n for n in [*pool, *more])

    with recording() as recorded:
        assert list(lazy([1, 2], (n for n in [3, 4]))) == [1, 2, 3, 4]
    assert recorded.stage("lazy")["input"] == {"more": "[xray: generator, not consumed]"}


def test_a_run_that_lost_a_stage_says_that_it_is_partial():
    """A stage for which the buffer had no room is counted, and its run does not pass for complete."""

    @xray.raw_stage
    def heavy(text: str) -> int:
        return len(text)

    @xray.pipeline
    def job() -> None:
        heavy("x" * 200_000)
        heavy("y")

    transport = MemoryTransport()
    xray.configure(transport=transport, buffer_bytes=50_000)
    job()
    assert not xray.flush(timeout_s=10), "a loss is said"
    assert xray.stats().dropped == {"buffer_full": 1}
    assert transport.of_type("run.end")[0]["completeness"] == "partial"
    assert [stage["input"] for stage in transport.of_type("stage")] == [{"text": "y"}]
