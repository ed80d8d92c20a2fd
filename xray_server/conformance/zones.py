"""What a store owes the zones of pages: fields of candidates that a stage declares as indexed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from xray.stage_types.base import Columns
from xray_server.conformance.suite import StoreSuite
from xray_server.pages import PAGE_SIZE, paginate
from xray_server.query.ast import And, Compare, Condition, Exists, Field, In, Not, Or, Scan, Test
from xray_server.query.evaluate import compile_condition
from xray_server.stores.base import Store, WriteBatch
from xray_server.testing_data import PROJECT, RUN_ID, STAGE_ID, ids, pages_of

PRICE, BRAND = "data.price", "data.brand"

VALUES: tuple[tuple[Any, ...], ...] = (
    (1, 2.5, 3), (10, 20), (-(2**63), 2**63 - 1), (2**53 + 1,), (0.1, 1e300), ("acme",), ("other", 7), (None,),
    (True, False), ([1, 50], [2]), ([],), ({"amount": 5},), ("", "é\U0001f600"), (["acme", "b"],), (),
)  # fmt: skip
"""The values of one field in the candidates of one stage each; with an empty one no candidate has the field."""

OPERANDS = (0, 1, 2.5, 5, 15, 50, 2**53, 2**53 + 1, 2**63 - 1, -(2**63), 1e300, "acme", "b", "", "é\U0001f600", "zz",
            None, True)  # fmt: skip


def columns_of(values: Sequence[Any], field: str = "price") -> Columns:
    """Candidates of which each has one of the values in a field of its data."""
    data = [{field: value, "other": n} for n, value in enumerate(values)] or [{"other": 0}]
    return Columns([f"c{n}" for n in range(len(data))], {"data": data})


def conditions_on(path: str) -> list[Condition]:
    """Conditions on a field: each operator with each operand, and what is made of them."""
    field = Field(tuple(path.split(".")))
    found: list[Condition] = [Test(field, Exists(wanted=True)), Test(field, Exists(wanted=False))]
    for value in OPERANDS:
        found += [Test(field, Compare(op, value)) for op in ("eq", "gt", "gte", "lt", "lte")]
        found.append(Not(Test(field, Compare("eq", value))))
    found += [
        Test(field, In(())),
        Test(field, In((2.5, "acme"))),
        Test(field, In((99, "nobody", None))),
        And((Test(field, Compare("gt", 2)), Test(field, Compare("lt", 4)))),
        Or((Test(field, Compare("gt", 1e299)), Test(field, Compare("eq", "b")))),
        Not(And((Test(field, Compare("gt", 2)), Test(field, Compare("lt", 4))))),
    ]
    return found


class ZoneContract(StoreSuite):
    """Pages keep the zones that they are written with, and scans may narrow by them."""

    @pytest.mark.parametrize("every", [1, 2], ids=["all stages declare the field", "every second stage does"])
    def test_a_scan_never_misses_a_stage_for_its_zones(self, tmp_path: Path, every: int) -> None:
        """Every stage with a candidate that satisfies a condition is found, whether it declares the field or not."""
        stages = {f"00000000-0000-7000-9000-{n:012d}": columns_of(values) for n, values in enumerate(VALUES)}

        async def use(store: Store) -> None:
            batch = WriteBatch(stages={stage_id: {"id": stage_id, "run_id": RUN_ID} for stage_id in stages})
            for n, (stage_id, columns) in enumerate(stages.items()):
                indexed = [PRICE, BRAND] if n % every == 0 else []
                batch.pages += paginate(RUN_ID, stage_id, 1, columns, indexed=indexed)
            await store.write(PROJECT, batch)
            for path in (PRICE, "data.price.amount", BRAND):
                for condition in conditions_on(path):
                    holds = compile_condition(condition)
                    expected = {each for each, columns in stages.items() if any(map(holds, columns.rows()))}
                    found = set(ids(await store.scan(PROJECT, Scan("stages", candidate=condition, limit=100))))
                    assert expected <= found, condition

        self.with_store(tmp_path, use)

    def test_zones_are_read_as_they_were_written(self, tmp_path: Path) -> None:
        """With every kind of value, and none where nothing was declared."""

        async def use(store: Store) -> None:
            for number, values in enumerate(VALUES):
                stage_id = f"00000000-0000-7000-9000-{number:012d}"
                columns = columns_of(values)
                given = paginate(RUN_ID, stage_id, 1, columns, indexed=[PRICE, "data.a.b c%é"] if number % 2 else [])
                await store.write(PROJECT, WriteBatch(pages=given))
                found = [page async for page in store.pages(PROJECT, stage_id)]
                assert [page.zones for page in found] == [page.zones for page in given]
                assert len(found[0].zones) == (2 if number % 2 else 0)

        self.with_store(tmp_path, use)

    @pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["declared first", "declared last"])
    @pytest.mark.parametrize("overlap", [0, 10], ids=["side by side", "again"])
    def test_pages_that_are_merged_have_zones_of_all_their_candidates(
        self, tmp_path: Path, order: tuple[int, int], overlap: int
    ) -> None:
        """One part of a page declares the field, the other does not: the zone is of both, whichever came first."""
        low, high = columns_of(range(20)), columns_of(range(100, 120))
        parts = [
            paginate(RUN_ID, STAGE_ID, 1, low, indexed=[PRICE]),
            paginate(RUN_ID, STAGE_ID, 1, high, from_seq=20 - overlap),
        ]

        async def use(store: Store) -> None:
            for part in order:
                stage = {"id": STAGE_ID, "run_id": RUN_ID}
                await store.write(PROJECT, WriteBatch(stages={STAGE_ID: stage}, pages=parts[part]))
            (page,) = await pages_of(store)
            zone = page.zones[PRICE]
            prices = [row["data"]["price"] for row in page.columns().rows()]
            assert (zone.low, zone.high) == (min(prices), max(prices))
            for value in (0, 110):
                is_there = Test(Field(("data", "price")), Compare("eq", value))
                assert ids(await store.scan(PROJECT, Scan("stages", candidate=is_there))) == [STAGE_ID]

        self.with_store(tmp_path, use)

    def test_the_same_candidates_may_be_declared_later(self, tmp_path: Path) -> None:
        """Sent once more with a field declared, a page has its zone from then on, and keeps the one it had."""
        columns = columns_of((1, 2))

        async def use(store: Store) -> None:
            for indexed in ([], [PRICE], [BRAND], []):
                await store.write(PROJECT, WriteBatch(pages=paginate(RUN_ID, STAGE_ID, 1, columns, indexed=indexed)))
            (page,) = await pages_of(store)
            assert set(page.zones) == {PRICE, BRAND}

        self.with_store(tmp_path, use)

    def test_zones_go_with_their_pages(self, tmp_path: Path) -> None:
        """After retention removed a stage's candidates, others that take their place have zones of their own."""

        async def use(store: Store) -> None:
            stages = {STAGE_ID: {"id": STAGE_ID, "run_id": RUN_ID}}
            for values in (range(PAGE_SIZE + 5), range(1000, 1005)):
                pages = paginate(RUN_ID, STAGE_ID, 1, columns_of(values), indexed=[PRICE])
                await store.write(PROJECT, WriteBatch(stages=stages, pages=pages))
                first, *_ = await pages_of(store)
                assert first.zones[PRICE].low == values[0]
                await store.remove_candidates(PROJECT, before=None, limit=100)
                assert await pages_of(store) == []

        self.with_store(tmp_path, use)
