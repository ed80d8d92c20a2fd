"""What ``xray gc``, ``store``, ``export`` and ``import`` do; the command line asks here, and prints.

Each opens the store beside whatever service uses it; what it writes waits for its turn like any other write. Answers
are plain JSON values.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gzip
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from xray.exceptions import XRayError, did_you_mean
from xray.guard import Guard
from xray.plugins import installed
from xray_server.api.moments import moment_ms
from xray_server.daemons.retention import Retention, planned, policy_of
from xray_server.exporting import batch_of
from xray_server.settings import ServerSettings
from xray_server.stores.base import Store
from xray_server.stores.opening import open_store
from xray_server.transfer.export import Wanted, lines_of, runs_of, stages_of
from xray_server.transfer.importing import Imported, import_lines
from xray_server.transfer.lines import to_line
from xray_server.transfer.parquet import write_parquet

T = TypeVar("T")

FORMATS = ("jsonl", "parquet")
Progress = Callable[[int | None], contextlib.AbstractContextManager[Callable[[int], None]]]
"""Given how much there is to do, or None where nobody knows: a block in which to say how much is done."""


def gc(*, dry_run: bool, **given: str | None) -> dict[str, Any]:
    """Remove what is too old or does not fit.

    Args:
        dry_run: Only say what is too old, and how much there is too much.
        given: Settings by name, over those of the environment; None is not given.

    Raises:
        XRayError: A setting is wrong, or the store could not do it.
    """
    settings = _settings(given)

    async def use(store: Store) -> dict[str, Any]:
        policy = await policy_of(settings, store)
        before = (await store.usage()).size_bytes
        if dry_run:
            removed, after = await planned(store, policy), before
        else:
            retention = Retention(store, policy, target=1.0)
            await retention.remove_by_age()
            await retention.remove_by_size()
            await store.reclaim()
            removed, after = retention.removed, (await store.usage()).size_bytes
        over = max(0, before - policy.max_disk_bytes) if policy.max_disk_bytes is not None else 0
        return {
            "dry_run": dry_run,
            "policy": dataclasses.asdict(policy) | {"text": str(policy)},
            "size_bytes": before,
            "size_after_bytes": after,
            "over_bytes": over,
            "removed": dataclasses.asdict(removed),
        }

    return _with_store(settings, use)


def check(store: str | None) -> dict[str, Any]:
    """Look at a store's indexes and questions: ``ok`` and ``findings``."""
    findings = _with_store(_settings({"store": store}), lambda opened: opened.check())
    return {
        "ok": all(finding.ok for finding in findings),
        "findings": [dataclasses.asdict(finding) for finding in findings],
    }


def usage(store: str | None) -> dict[str, Any]:
    """What a store's data takes."""
    return dataclasses.asdict(_with_store(_settings({"store": store}), lambda opened: opened.usage()))


def export(
    store: str | None,
    file: str,
    *,
    form: str,
    project: str,
    label: str | None,
    since: str | None,
    until: str | None,
    progress: Progress,
) -> None:
    """Write an export.

    Args:
        store: The store's URL, or None for the setting.
        file: A file, compressed where it ends in ``.gz``, or ``-`` for standard output; for Parquet a folder.
        form: ``jsonl``, ``parquet``, or the name of a plugin's exporter.
        project: The project.
        label: Only runs of this pipeline.
        since: Only runs that began at or after: ``7d``, or ISO 8601 with a zone.
        until: Only runs that began before.
        progress: Told how many runs are done.

    Raises:
        XRayError: An argument is wrong, the file cannot be written, or the store could not be read.
    """
    plugins = installed()
    found = plugins.named("xray_exporters", form)
    if form not in FORMATS and found is None:
        names = (*FORMATS, *plugins.names("xray_exporters"))
        hint = did_you_mean(form, names) or f"Write {' or '.join(names)}."
        raise XRayError(f"There is no format '{form}'.", code="bad_usage", path="--format", hint=hint)
    if form == "parquet" and file == "-":
        raise XRayError("Parquet files go into a folder.", code="bad_usage", path="--out", hint="Name one with --out.")
    if found is not None and file != "-":
        raise XRayError(f"The exporter '{form}' writes no file.", code="bad_usage", path="--out", hint="Leave it out.")
    times = [moment_ms(text, name) for name, text in (("--since", since), ("--until", until))]
    wanted = Wanted(project, label, *times)

    async def use(opened: Store) -> None:
        total = (await opened.usage()).run_count if not (label or since or until) else None
        with progress(total) as advance:
            if found is not None:
                await _hand_over(opened, wanted, form, found, advance)
                return
            if form == "parquet":
                async for counts in write_parquet(opened, wanted, Path(file)):
                    advance(counts["runs"])
                return
            runs = 0
            with _output(file) as stream:
                async for line in lines_of(opened, wanted):
                    stream.write(to_line(line))
                    if line.get("kind") == "run":
                        runs += 1
                        advance(runs)

    _with_store(_settings({"store": store}), use)


async def _hand_over(
    opened: Store, wanted: Wanted, name: str, found: tuple[Any, Guard], advance: Callable[[int], None]
) -> None:
    """Give a plugin's exporter what is stored, some runs at a time."""
    exporter, guard = found
    done = 0
    async for runs in runs_of(opened, wanted):
        stages = [stage async for stage in stages_of(opened, wanted.project, [run["id"] for run in runs])]
        try:
            await asyncio.to_thread(guard.call_within, exporter, batch_of(wanted.project, runs, stages))
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
            raise XRayError(f"'{name}' failed after {done} runs: {problem}.", code="export_failed") from error
        done += len(runs)
        advance(done)


def import_(store: str | None, file: str, *, project: str, progress: Progress) -> dict[str, Any]:
    """Bring an export into a store.

    Args:
        store: The store's URL, or None for the setting; one that is not there is made.
        file: A file, compressed where it ends in ``.gz``, or ``-`` for standard input.
        project: The project that takes the data.
        progress: Told how many bytes were read.

    Raises:
        XRayError: The file is no export or cannot be read, or the store could not be written.
    """
    # The file first: where there is none, no store is made either.
    with _input(file) as (lines, position, total), progress(total) as advance:

        async def use(opened: Store) -> Imported:
            imported = Imported()
            async for step in import_lines(opened, project, lines):
                imported = step
                advance(position())
            return imported

        done = _with_store(_settings({"store": store}), use, is_new=True)
    names = ("lines", "runs", "stages", "candidates", "bad_lines", "is_whole")
    errors = [{"line": number, **error.as_dict(), "text": str(error)} for number, error in done.errors]
    return {name: getattr(done, name) for name in names} | {"errors": errors}


# --- helpers ----------------------------------------------------------------------------------------------------


def _settings(given: dict[str, str | None]) -> ServerSettings:
    known = {name: value for name, value in given.items() if value is not None}
    return dataclasses.replace(ServerSettings.from_environment(), **known)  # type: ignore[arg-type]  # all are texts


def _with_store(settings: ServerSettings, use: Callable[[Store], Awaitable[T]], *, is_new: bool = False) -> T:
    """Use the store of the settings in an event loop; one that is not there yet is an error unless it may be new."""

    async def run() -> T:
        opened = open_store(settings.store)
        location = str(opened.describe()["location"])
        if opened.kind == "sqlite" and not is_new and not Path(location).exists():  # noqa: ASYNC240 - nothing else runs
            raise XRayError(
                f"There is no data in {location}.", code="no_store", path="--store", hint="Name it: sqlite:///FILE."
            )
        await opened.open()
        try:
            return await use(opened)
        finally:
            await opened.close()

    return asyncio.run(run())


@contextlib.contextmanager
def _output(file: str) -> Iterator[BinaryIO]:
    if file == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        with gzip.open(file, "wb") if file.endswith(".gz") else Path(file).open("wb") as stream:
            yield stream  # type: ignore[misc]  # a gzip file writes bytes like any other
    except OSError as error:
        raise XRayError(f"{file} cannot be written: {error.strerror or error}.", code="unwritable_file") from None


@contextlib.contextmanager
def _input(file: str) -> Iterator[tuple[Iterator[bytes], Callable[[], int], int | None]]:
    """Lines, how many bytes were read, and of how many."""
    if file == "-":
        yield iter(sys.stdin.buffer), lambda: 0, None
        return
    try:
        with Path(file).open("rb") as stream:
            lines = gzip.GzipFile(fileobj=stream) if file.endswith(".gz") else stream
            yield iter(lines), stream.tell, Path(file).stat().st_size
    except (OSError, EOFError) as error:
        raise XRayError(
            f"{file} cannot be read: {getattr(error, 'strerror', None) or error}.", code="unreadable_file"
        ) from None
