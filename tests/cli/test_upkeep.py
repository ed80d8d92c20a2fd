"""What the command line does to a store itself: gc, checks, usage, export and import."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import re
import sqlite3
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from tests.cli.test_cli import xray_cli
from tests.mongodb import Databases
from tests.service import start_service
from xray.ids import id_text, now_ms
from xray.metrics import Metric
from xray_server.conformance.rollups import NOON, a_stage
from xray_server.conformance.upkeep import old_batch
from xray_server.documents import Document
from xray_server.pages import PAGE_SIZE, paginate
from xray_server.rollups import HOUR_MS, read_rollups
from xray_server.stores.base import Store, WriteBatch
from xray_server.stores.mongo import MongoStore
from xray_server.stores.sqlite import SqliteStore
from xray_server.testing_data import documents, sample_batch, sample_columns

FAR = NOON + 10**6 * HOUR_MS


@dataclass
class Place:
    """A place for a store: the URL that names it, and how to open it."""

    url: str
    make: Callable[[], Store]

    def use(self, function: Callable[[Store], Awaitable[Any]]) -> Any:
        async def run() -> Any:
            store = self.make()
            await store.open()
            try:
                return await function(store)
            finally:
                await store.close()

        return asyncio.run(run())


def sqlite_place(folder: Path) -> Place:
    return Place(f"sqlite:///{folder}/x.sqlite3", lambda: SqliteStore(folder / "x.sqlite3"))


def mongodb_place(folder: Path, databases: Databases) -> Place:
    url = databases.url(folder)
    return Place(url, lambda: MongoStore(url))


KINDS = ("sqlite", "mongodb")
"""Every kind of store that there is a round trip between."""


@pytest.fixture(params=list(itertools.product(KINDS, KINDS)), ids="-".join)
def places(request, tmp_path) -> tuple[Place, Place]:
    """Two places for stores, of each kind with each other one."""

    def place(kind: str, folder: Path) -> Place:
        if kind == "sqlite":
            return sqlite_place(folder)
        return mongodb_place(folder, request.getfixturevalue("databases"))

    one, other = request.param
    return place(one, tmp_path / "from"), place(other, tmp_path / "to")


def everything(store_place: Place, project: str = "default") -> list[Any]:
    """All that a project has: documents, candidates with their places, declarations, rollups."""

    async def read(store: Store) -> list[Any]:
        stages = await documents(store, "stages", project)
        pages = []
        for stage_id in stages:
            pages += [page async for page in store.pages(project, stage_id)]
        candidates = [(page.stage_id, page.run_id, page.seqs, list(page.columns().rows())) for page in pages]
        rollups = await read_rollups(store, project, since=0, until=FAR)
        return [await documents(store, "runs", project), stages, candidates, await store.declarations(project), rollups]

    return store_place.use(read)


async def fill(store: Store) -> None:
    """Everything that a store can hold: odd values, gaps among candidates, removed ones, several projects."""
    await store.write("default", old_batch(columns=PAGE_SIZE + 5))
    await store.remove_candidates("default", before=NOON + HOUR_MS, limit=1)
    odd = sample_batch()
    odd.pages, odd.declarations = [], {"plugin_type": [Metric("oddness", "ratio", "How odd it is.").as_dict()]}
    await store.write("default", odd)
    stage: Document = a_stage(50, error={"message": "é\u2028\U0001f600"}, output=[1, None, {"a": 2**60, "b": 1e-9}])
    run = {"id": stage["run_id"], "label": "odd", "input": {"x": ["\n", '"']}, "tags": ["b"], "started_at": NOON}
    batch = WriteBatch({run["id"]: run}, {stage["id"]: stage})
    batch.pages = paginate(run["id"], stage["id"], NOON, sample_columns(9).slice(0, 3))
    await store.write("default", batch)
    later = paginate(run["id"], stage["id"], NOON, sample_columns(9).slice(5, 9), from_seq=5)
    await store.write("default", WriteBatch(pages=later))
    await store.write("other", old_batch((1,)))


@pytest.mark.parametrize("name", ["all.jsonl", "all.jsonl.gz"])
def test_a_round_trip_is_equal(places, tmp_path, name):
    """What was exported and imported is the same, rollups included; importing it twice changes nothing."""
    source, target = places
    source.use(fill)
    file = tmp_path / name
    assert cli("export", "--store", source.url, "--out", file).returncode == 0
    for _ in range(2):
        done = json.loads(cli("import", file, "--store", target.url, "--json").stdout)
        assert done["errors"] == []
        assert done["is_whole"]
        assert everything(target) == everything(source)
    assert everything(target, "other")[0] == {}
    again = tmp_path / "again.jsonl"
    assert cli("export", "--store", target.url, "--out", again).returncode == 0
    assert lines_of(again)[1:] == lines_of(file)[1:]


def test_an_export_is_lines_that_stand_alone(tmp_path):
    """The first line names the form, the last one counts; label and times narrow the runs."""
    place = sqlite_place(tmp_path)
    place.use(fill)
    lines = [json.loads(line) for line in cli("export", "--store", place.url).stdout.strip().split("\n")]
    assert lines[0]["xray_export"] == 1
    assert {line.get("kind") for line in lines[1:-1]} == {"declarations", "run", "stage", "candidates"}
    kinds = [line.get("kind") for line in lines]
    counts = {"runs": kinds.count("run"), "stages": kinds.count("stage")}
    assert lines[-1] == {"kind": "end", **counts, "candidates": sum(len(line.get("seqs", ())) for line in lines)}
    narrowed = cli("export", "--store", place.url, "--label", "shop", "--since", iso(2), "--until", iso(4)).stdout
    runs = [line["run"] for line in map(json.loads, narrowed.strip().split("\n")) if line.get("kind") == "run"]
    assert [run["started_at"] for run in runs] == [NOON + 2 * HOUR_MS, NOON + 3 * HOUR_MS]
    others = cli("export", "--store", place.url, "--project", "other").stdout
    assert json.loads(others.strip().split("\n")[-1])["runs"] == 1


BAD_LINES = [
    ("{", "not JSON"),
    ("[1]", "a JSON object"),
    ('{"kind": "runs"}', "Did you mean 'run'?"),
    ('{"kind": "run", "run": {"id": "x"}}', "run.id"),
    ('{"kind": "run", "run": {"id": "00000000-0000-7000-8000-000000000001", "lable": "a"}}', "Did you mean 'label'?"),
    ('{"kind": "run", "run": {"id": "00000000-0000-7000-8000-000000000001", "started_at": "now"}}', "run.started_at"),
    ('{"kind": "run", "run": {"id": "00000000-0000-7000-8000-000000000001", "metadata": 3}}', "run.metadata"),
    ('{"kind": "stage", "stage": {"id": "00000000-0000-7000-8000-000000000001"}}', "stage.run_id"),
    ('{"kind": "candidates", "seqs": [0]}', "run_id"),
    (('{"kind": "candidates", "run_id": "00000000-0000-7000-8000-000000000001", "columns": {"candidate_id": ["a"]}, '
     '"stage_id": "00000000-0000-7000-8000-000000000001", "seqs": [0, 1]}'), "seqs"),
    ('{"kind": "declarations", "stage_type": "t", "metrics": [{"name": "Bad Name"}]}', "metrics"),
]  # fmt: skip


def test_bad_lines_are_named_and_the_good_ones_stored(tmp_path):
    """Whatever stands between them, every good line is imported, and each bad one is reported by its number."""
    source, target = sqlite_place(tmp_path / "a"), sqlite_place(tmp_path / "b")
    source.use(fill)
    good = cli("export", "--store", source.url).stdout.strip().split("\n")
    mixed = list(good)
    for number, (line, _) in enumerate(BAD_LINES):
        mixed.insert(2 + 2 * number, line)
    done = cli("import", "-", "--store", target.url, stdin="\n".join(mixed))
    assert done.returncode == 1
    for number, (_, said) in enumerate(BAD_LINES):
        (report,) = [line for line in done.stderr.split("\n") if line.startswith(f"line {3 + 2 * number}: ")]
        assert said in report
    assert everything(target) == everything(source)
    result = json.loads(cli("import", "-", "--store", target.url, "--json", stdin="\n".join(mixed)).stdout)
    assert (result["bad_lines"], len(result["errors"])) == (len(BAD_LINES), len(BAD_LINES))


def test_an_import_that_was_broken_off_is_said_and_goes_on(tmp_path):
    """A file without its last line exits with 1; the whole file after it gives everything."""
    source, target = sqlite_place(tmp_path / "a"), sqlite_place(tmp_path / "b")
    source.use(fill)
    good = cli("export", "--store", source.url).stdout.strip().split("\n")
    half = cli("import", "-", "--store", target.url, stdin="\n".join(good[: len(good) // 2]) + '\n{"kind": "sta')
    assert half.returncode == 1
    assert "broken off" in half.stderr
    assert cli("import", "-", "--store", target.url, stdin="\n".join(good)).returncode == 0
    assert everything(target) == everything(source)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "does not begin"),
        ('{"kind": "run"}', "does not begin"),
        ("what?", "not JSON"),
        ('{"xray_export": 2}', "form 2"),
    ],
)
def test_what_is_no_export_is_refused(tmp_path, text, said):
    """Nothing of it is imported, and the error says why."""
    place = sqlite_place(tmp_path)
    done = cli("import", "-", "--store", place.url, stdin=text)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_parquet_has_the_same_rows(tmp_path):
    """A file each for runs, stages and candidates: times as timestamps, free JSON as text."""
    place = sqlite_place(tmp_path)
    place.use(fill)
    folder = tmp_path / "tables"
    assert cli("export", "--store", place.url, "--format", "parquet", "--out", folder).returncode == 0
    runs, stages, candidates, _, _ = everything(place)
    tables = {
        name: parquet.read_table(folder / f"{name}.parquet").to_pylist() for name in ("runs", "stages", "candidates")
    }
    assert {row["id"] for row in tables["runs"]} == set(runs)
    of_stage = {row["id"]: row for row in tables["stages"]}
    assert set(of_stage) == set(stages)
    odd = of_stage[a_stage(50)["id"]]
    assert json.loads(odd["output"]) == [1, None, {"a": 2**60, "b": 1e-9}]
    assert odd["pipeline_label"] == "shop"
    assert odd["started_at"].timestamp() * 1000 == a_stage(50)["started_at"]
    assert len(tables["candidates"]) == sum(len(seqs) for _, _, seqs, _ in candidates)
    first = next(row for row in tables["candidates"] if row["seq"] == 5 and row["stage_id"] == odd["id"])
    assert (first["candidate_id"], first["reason_label"], first["score"]) == ("candidate 5", "too_dear", 5 / 8)
    assert json.loads(first["data"]) == {"n": 5, "words": ["a", "é"]}


def test_gc_says_what_would_go_and_then_removes_it(tmp_path):
    """A dry run changes nothing and counts what the real one removes; the space is given back."""
    place = sqlite_place(tmp_path)
    now = now_ms()
    old = now - 40 * 24 * HOUR_MS
    run_id, stage_id = id_text(old * 10**6, 1), id_text(old * 10**6, 2)
    batch = WriteBatch({run_id: {"id": run_id, "started_at": old}}, {stage_id: {"id": stage_id, "run_id": run_id}})
    batch.pages = paginate(run_id, stage_id, old, sample_columns(50 * PAGE_SIZE))
    place.use(lambda store: store.write("default", batch))
    place.use(lambda store: store.write("default", old_batch()))
    size = Path(tmp_path / "x.sqlite3").stat().st_size
    keep = ("--keep-candidates", "30d", "--keep-runs", "forever", "--store", place.url)
    planned = json.loads(cli("gc", "--dry-run", "--json", *keep).stdout)
    assert planned["removed"]["candidates"] == 50 * PAGE_SIZE
    assert "50 pages" in cli("gc", "--dry-run", *keep).stdout
    done = json.loads(cli("gc", "--json", *keep).stdout)
    # A stage whose pages go in several batches is counted with each.
    assert done["removed"] | {"stages": 1} == planned["removed"]
    assert done["size_after_bytes"] < done["size_bytes"]
    assert Path(tmp_path / "x.sqlite3").stat().st_size < size
    again = json.loads(cli("gc", "--json", "--keep-runs", "30d", "--store", place.url).stdout)["removed"]
    assert (again["runs"], again["candidates"]) == (1, 0)
    too_much = cli("gc", "--dry-run", "--max-disk", "1kB", *keep).stdout
    assert "too much: the oldest would go besides." in too_much
    assert json.loads(cli("gc", "--json", "--max-disk", "1kB", *keep).stdout)["removed"]["runs"] == 6


def test_show_says_whose_candidates_are_gone(tmp_path):
    """The tree of a run has the day of the removal beside the stage."""
    with start_service(tmp_path) as service:
        place = Place(f"sqlite:///{tmp_path}/xray.sqlite3", lambda: SqliteStore(tmp_path / "xray.sqlite3"))
        place.use(lambda store: store.write("default", old_batch((1,))))
        place.use(lambda store: store.remove_candidates("default", before=None, limit=1))
        shown = xray_cli("show", "latest", service=service).stdout
        assert re.search(r"filter  filtering .*candidates removed \d{4}-\d\d-\d\d", shown)


def test_gc_runs_beside_a_service(tmp_path):
    """A store that a service uses can be looked after by another process, and the service goes on."""
    with start_service(tmp_path) as service:
        url = f"sqlite:///{tmp_path}/xray.sqlite3"
        place = Place(url, lambda: SqliteStore(tmp_path / "xray.sqlite3"))
        place.use(lambda store: store.write("default", old_batch()))
        with service.client() as client:
            assert len(client.runs()["rows"]) == 6
        done = json.loads(cli("gc", "--json", "--max-disk", "1kB", "--store", url).stdout)
        assert done["removed"]["runs"] == 6
        with service.client() as client:
            assert client.runs()["rows"] == []
        assert cli("store", "check", "--store", url).returncode == 0


def test_check_finds_what_is_missing(tmp_path):
    """Exit code 0 where all is well, else 1 with what is wrong and what to do."""
    place = sqlite_place(tmp_path)
    place.use(fill)
    good = cli("store", "check", "--store", place.url)
    assert good.returncode == 0
    assert "Everything is as it should be." in good.stdout
    connection = sqlite3.connect(tmp_path / "x.sqlite3", isolation_level=None)
    connection.execute("DROP INDEX stages_by_run")
    connection.execute("DROP INDEX pages_by_start")
    connection.execute("CREATE INDEX pages_by_start ON pages (started_at)")
    connection.close()
    bad = cli("store", "check", "--store", place.url)
    assert bad.returncode == 1
    assert "CREATE INDEX stages_by_run ON stages" in bad.stdout
    found = json.loads(cli("store", "check", "--json", "--store", place.url).stdout)
    wrong = {finding["what"] for finding in found["findings"] if not finding["ok"]}
    assert {"index stages_by_run", "index pages_by_start"} <= wrong
    assert not found["ok"]


def test_usage_is_shown(tmp_path):
    """The size with its unit, and how much of what there is."""
    place = sqlite_place(tmp_path)
    place.use(lambda store: store.write("default", old_batch()))
    assert "6 runs, 6 stages, 6 candidate pages" in cli("store", "usage", "--store", place.url).stdout
    assert json.loads(cli("store", "usage", "--json", "--store", place.url).stdout)["run_count"] == 6


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gc", "--keep-runs", "1 year"], "no duration"),
        (["export", "--format", "parqet", "--out", "x"], "Did you mean 'parquet'?"),
        (["export", "--format", "parquet"], "--out"),
        (["export", "--since", "yesterday"], "--since"),
        (["export", "--out", "/no/such/folder/x"], "/no/such/folder/x cannot be written"),
        (["import", "/no/such/file"], "/no/such/file cannot be read"),
    ],
)
def test_wrong_use_is_a_clear_error(tmp_path, arguments, said):
    """The message names the place and what to do; no traceback."""
    place = sqlite_place(tmp_path)
    place.use(lambda store: store.write("default", old_batch()))
    done = cli(*arguments, "--store", place.url)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [["gc"], ["store", "check"], ["store", "usage"], ["export"]])
def test_a_store_that_is_not_there_is_not_made(tmp_path, arguments):
    """Whoever looks at data in the wrong place is told so, and no empty file is left there."""
    done = cli(*arguments, "--store", f"sqlite:///{tmp_path}/none.sqlite3")
    assert done.returncode == 1
    assert "There is no data in" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_import_of_a_missing_file_makes_no_store(tmp_path):
    """A wrong name of the file to import leaves no empty store behind."""
    done = cli("import", tmp_path / "none.jsonl", "--store", f"sqlite:///{tmp_path}/new/xray.sqlite3")
    assert done.returncode == 1
    assert "cannot be read" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_compressed_file_is_a_clear_error(tmp_path):
    """A .gz file that is none, or ends too early."""
    (tmp_path / "x.gz").write_bytes(b"no gzip")
    (tmp_path / "y.gz").write_bytes(gzip.compress(b'{"xray_export": 1}\n' * 50)[:-9])
    for name in ("x.gz", "y.gz"):
        done = cli("import", tmp_path / name, "--store", sqlite_place(tmp_path).url)
        assert done.returncode == 1
        assert "cannot be read" in done.stderr


# --- helpers ----------------------------------------------------------------------------------------------------


def cli(*arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return xray_cli(*map(str, arguments), stdin=stdin)


def lines_of(file: Path) -> list[Any]:
    text = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    return [json.loads(line) for line in text.strip().split(b"\n")]


def iso(hour: int) -> str:
    from xray_server.api.answers import iso_time

    text = iso_time(NOON + hour * HOUR_MS)
    assert text is not None
    return text
