"""What a store owes to named documents, as tests."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from xray.ids import now_ms
from xray_server.conformance.suite import StoreSuite
from xray_server.stores.base import NamedDocument, Store
from xray_server.testing_data import PROJECT

DOCUMENT: dict[str, Any] = {
    "z": {"$gt": 0.5, "a.b": [1, 2.5, None, True, "é"]},
    "a": "text" * 400,
    "": {"nested": {"$and": [{"x": -(2**63)}, {}]}},
}
"""Dots, dollars, an empty key, an order that is not that of the alphabet, and more than is kept uncompressed."""

NAMES = ("", "A", "a", "a.b", "a/b", "b c", "é", "日本", "\uffff", "\U0001f600")
"""In the order of code points, in which the last one comes after the one before; in UTF-16 it would not."""


class NamedContract(StoreSuite):
    """Documents that people gave a name to."""

    def test_what_was_named_is_read(self, tmp_path: Path) -> None:
        """With its times, the order of its keys and everything that a JSON object may hold."""

        async def use(store: Store) -> None:
            began = now_ms()
            kept = await store.keep_named(PROJECT, "question", "one", DOCUMENT)
            assert began <= kept.created_at == kept.updated_at <= now_ms()
            assert kept == NamedDocument("question", "one", DOCUMENT, kept.created_at, kept.updated_at)
            found = await store.named(PROJECT, "question", "one")
            assert found is not None
            assert found == kept
            assert repr(found) == repr(kept)
            assert list(found.document) == list(DOCUMENT)
            assert await store.all_named(PROJECT, "question") == [kept]
            assert await store.named(PROJECT, "question", "two") is None

        self.with_store(tmp_path, use)

    def test_keeping_the_same_again_changes_nothing(self, tmp_path: Path) -> None:
        """And another document takes the place of the first, whole, without changing when the name was first kept."""

        async def use(store: Store) -> None:
            first = await store.keep_named(PROJECT, "question", "one", DOCUMENT)
            await asyncio.sleep(0.005)
            assert await store.keep_named(PROJECT, "question", "one", dict(DOCUMENT)) == first
            later = now_ms()
            assert later > first.updated_at
            second = await store.keep_named(PROJECT, "question", "one", {"z": 1})
            assert (second.document, second.created_at) == ({"z": 1}, first.created_at)
            assert later <= second.updated_at <= now_ms()
            assert await store.named(PROJECT, "question", "one") == second
            # To a question the order of keys is a difference: it compares whole objects in order.
            turned = await store.keep_named(PROJECT, "question", "two", {"a": 1, "b": 2})
            turned = await store.keep_named(PROJECT, "question", "two", {"b": 2, "a": 1})
            assert list(turned.document) == ["b", "a"]

        self.with_store(tmp_path, use)

    def test_names_are_listed_in_order(self, tmp_path: Path) -> None:
        """By code points, whatever order they came in; case and form matter."""

        async def use(store: Store) -> None:
            for number, name in enumerate(reversed(NAMES)):
                await store.keep_named(PROJECT, "question", name, {"n": number})
            found = await store.all_named(PROJECT, "question")
            assert [each.name for each in found] == list(NAMES)
            assert [each.document["n"] for each in found] == list(reversed(range(len(NAMES))))

        self.with_store(tmp_path, use)

    def test_kinds_and_projects_have_names_of_their_own(self, tmp_path: Path) -> None:
        """One name in several of them is several documents; a project with nothing else is not listed."""
        places = [(PROJECT, "question"), (PROJECT, "questions"), (PROJECT, "quest"), ("other", "question"), ("", "")]

        async def use(store: Store) -> None:
            for number, (project, kind) in enumerate(places):
                await store.keep_named(project, kind, "one", {"n": number})
            for number, (project, kind) in enumerate(places):
                assert [each.document for each in await store.all_named(project, kind)] == [{"n": number}]
            assert await store.remove_named(PROJECT, "question", "one")
            assert await store.all_named(PROJECT, "question") == []
            for number, (project, kind) in enumerate(places[1:], 1):
                found = await store.named(project, kind, "one")
                assert found is not None
                assert found.document == {"n": number}
            assert await store.projects() == []

        self.with_store(tmp_path, use)

    def test_a_name_can_be_removed_and_given_again(self, tmp_path: Path) -> None:
        """Removing what is not there says so; what is named anew is new."""

        async def use(store: Store) -> None:
            assert not await store.remove_named(PROJECT, "question", "one")
            first = await store.keep_named(PROJECT, "question", "one", {"n": 1})
            assert await store.remove_named(PROJECT, "question", "one")
            assert not await store.remove_named(PROJECT, "question", "one")
            assert await store.named(PROJECT, "question", "one") is None
            await asyncio.sleep(0.005)
            assert (await store.keep_named(PROJECT, "question", "one", {"n": 1})).created_at > first.created_at

        self.with_store(tmp_path, use)

    def test_writers_of_one_name_leave_one_of_their_documents(self, tmp_path: Path) -> None:
        """Whole; and what each of them is told is what it wrote, or what came after it."""

        async def use(store: Store) -> None:
            written = [{"n": number, "again": number} for number in range(20)]
            told = await asyncio.gather(*(store.keep_named(PROJECT, "question", "one", each) for each in written))
            found = await store.named(PROJECT, "question", "one")
            assert found is not None
            assert found.document in written
            assert all(each.document in written and each.created_at == found.created_at for each in told)
            assert len(await store.all_named(PROJECT, "question")) == 1

        self.with_store(tmp_path, use)

    def test_named_documents_outlive_the_store_object(self, tmp_path: Path) -> None:
        """And retention: nothing of them goes with the last run."""

        async def keep(store: Store) -> None:
            await store.keep_named(PROJECT, "question", "one", DOCUMENT)

        async def find(store: Store) -> None:
            await store.remove_runs(PROJECT, before=None, limit=10)
            found = await store.named(PROJECT, "question", "one")
            assert found is not None
            assert found.document == DOCUMENT

        self.with_store(tmp_path, keep)
        self.with_store(tmp_path, find)
