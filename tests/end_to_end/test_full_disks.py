"""Disks that are full: the spool's and the store's. What was recorded is stored in the end, or counted."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import xray
from tests.ports import free_port
from tests.service import Service, all_rows, start_service

if sys.platform == "win32":
    pytest.skip("these are limits and file systems of POSIX", allow_module_level=True)

import resource


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "xray")


@contextmanager
def small_disk(folder: Path, size_kb: int) -> Iterator[Callable[[int], None]]:
    """A file system of a given size below ``folder``; what is yielded makes it larger. Needs the right to mount."""
    folder.mkdir()

    def mount(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True, check=False)

    try:
        mounted = mount("-t", "tmpfs", "-o", f"size={size_kb}k", "xray-test")
    except FileNotFoundError:
        pytest.skip("there is no mount command here")
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield lambda larger_kb: mount("-o", f"remount,size={larger_kb}k").check_returncode()
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def recorder(label: str) -> Any:
    @xray.filtering_stage(label)
    def keep(pool: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return pool[:1]

    return keep


def pool(number: int) -> list[dict[str, Any]]:
    """About 2 kB that no compressor makes small."""
    text = "".join(f"{(number * 7919 + n * 104_729) ** 5:x}" for n in range(25))
    return [{"id": n, "run": number, "text": text[n:]} for n in range(3)]


def check_stored(service: Service, label: str, stages: int) -> None:
    """Each stage is stored once and whole, with its run."""
    rows = all_rows(service, stage={"name": label})
    assert len(rows) == len({row["id"] for row in rows}) == stages
    assert {(row["metrics"]["input_count"], row["metrics"]["output_count"]) for row in rows} == {(3, 1)}
    runs = all_rows(service, pipeline={"label": label}, **{"return": "runs"})
    assert [run["status"] for run in runs] == ["success"] * stages


def record_until(condition: Callable[[int], bool], keep: Any) -> int:
    """Record until something is so; how many calls that took."""
    made = 0
    deadline = time.monotonic() + 60
    while not condition(made) and time.monotonic() < deadline:
        keep(pool(made))
        made += 1
        time.sleep(0.002)
    assert condition(made), xray.stats()
    return made


def dropped() -> int:
    return xray.stats().dropped.get("buffer_full", 0)


def a_store_that_fills(service: Service, label: str, make_room: Callable[[], object]) -> None:
    """Record until the store takes no more, and some more; make room: all of it is stored."""
    xray.configure(server_url=service.url, flush_interval_s=0.02)
    keep = recorder(label)
    # Records wait in the spool only when the service does not take them.
    made = record_until(lambda _: xray.stats().spooled > 200, keep)
    stats = xray.stats()
    assert 0 < stats.acknowledged < stats.recorded == 3 * made
    with service.client() as client:
        assert client.health()["status"] == "ok"
        before = len(all_rows(service, stage={"name": label}))
    assert before >= stats.acknowledged // 3 - 1, "what was acknowledged can be read while the disk is full"
    make_room()
    assert xray.flush(60), xray.stats()
    stats = xray.stats()
    assert (stats.acknowledged, stats.dropped, stats.spooled) == (3 * made, {}, 0)
    check_stored(service, label, made)


def test_a_store_whose_file_may_not_grow(tmp_path: Path):
    """The kernel refuses to let the store's files grow: senders are told so, keep everything, and it arrives later."""
    if not hasattr(resource, "prlimit"):
        pytest.skip("this system has no prlimit")
    with start_service(tmp_path, XRAY_SERVER_MAX_DISK="unlimited") as service:
        pid = service.process.pid
        _, most = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1_000_000, most))
        a_store_that_fills(service, "no_growth", lambda: resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, most)))


def test_a_store_on_a_full_disk(tmp_path: Path):
    """The disk itself is full, and then has room: as above."""
    with (
        small_disk(tmp_path / "disk", 4_000) as enlarge,
        start_service(tmp_path / "disk", XRAY_SERVER_MAX_DISK="unlimited") as service,
    ):
        a_store_that_fills(service, "full_disk", lambda: enlarge(64_000))


def test_a_store_that_was_killed_on_a_full_disk(tmp_path: Path):
    """Killed with -9 when nothing could be written any more, and started again with room: nothing is lost."""
    port = free_port()
    xray.configure(server_url=f"http://127.0.0.1:{port}", flush_interval_s=0.02)
    keep = recorder("killed_full")
    with small_disk(tmp_path / "disk", 4_000) as enlarge:
        arguments = (tmp_path / "disk", "--port", str(port), "--max-disk", "unlimited")
        with start_service(*arguments) as service:
            made = record_until(lambda _: xray.stats().spooled > 200, keep)
            service.process.kill()
            service.process.wait(20)
        enlarge(64_000)
        with start_service(*arguments) as service:
            assert xray.flush(60), xray.stats()
            assert (xray.stats().acknowledged, xray.stats().dropped) == (3 * made, {})
            check_stored(service, "killed_full", made)


def test_a_spool_on_a_full_disk(tmp_path: Path):
    """What fits neither on the disk nor in the buffer is counted; all else arrives, and delivery goes on after that."""
    port = free_port()
    with small_disk(tmp_path / "disk", 200):
        xray.configure(
            server_url=f"http://127.0.0.1:{port}", spool_dir=str(tmp_path / "disk" / "spool"), flush_interval_s=0.02,
            buffer_records=300,
        )  # fmt: skip
        keep = recorder("spool_full_disk")
        made = record_until(lambda _: xray.stats().spooled > 0, keep)
        made += record_until(lambda _: xray.stats().buffered >= 300, keep)
        before = dropped()
        made += record_until(lambda _: dropped() > before + 100, keep)
        stats = xray.stats()
        assert set(stats.dropped) == {"buffer_full"}
        assert stats.spooled > 0
        assert stats.recorded == 3 * made == stats.buffered + stats.spooled + stats.dropped["buffer_full"]
        with start_service(tmp_path, "--port", str(port)) as service:
            xray.flush(60)
            for number in range(20):
                keep(pool(made + number))
            assert xray.flush(30), xray.stats()
            after = xray.stats()
            assert after.dropped == stats.dropped
            assert after.acknowledged == 3 * (made + 20) - stats.dropped["buffer_full"]
            assert (after.spooled, after.buffered) == (0, 0)
            stages = len(all_rows(service, stage={"name": "spool_full_disk"}))
            runs = len(all_rows(service, pipeline={"label": "spool_full_disk"}, **{"return": "runs"}))
            # Of each call a stage, and the start and the end of its run.
            assert 20 < stages < made + 20
            assert stages + runs <= after.acknowledged <= stages + 2 * runs
        xray.configure(enabled=False)  # lets go of the disk


def test_a_spool_first_record_that_the_disk_refuses_waits_in_memory(tmp_path: Path):
    """With ``spool-first`` a full disk costs the promise of surviving a kill, and not the record."""
    port = free_port()
    with small_disk(tmp_path / "disk", 100):
        xray.configure(
            server_url=f"http://127.0.0.1:{port}", spool_dir=str(tmp_path / "disk" / "spool"),
            durability="spool-first", flush_interval_s=0.02,
        )  # fmt: skip
        keep = recorder("first_full")
        made = record_until(lambda _: xray.stats().buffered > 100, keep)
        assert xray.stats().spooled > 0
        with start_service(tmp_path, "--port", str(port)) as service:
            assert xray.flush(60), xray.stats()
            assert (xray.stats().acknowledged, xray.stats().dropped) == (3 * made, {})
            check_stored(service, "first_full", made)
        xray.configure(enabled=False)
