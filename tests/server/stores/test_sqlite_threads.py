"""The threads that read a SQLite file."""

from __future__ import annotations

import asyncio
import threading

import pytest

from xray.exceptions import StoreClosed
from xray_server.stores.sqlite.threads import ReaderThreads


def test_the_thread_that_read_last_is_taken_first():
    """One question after the other is read by one thread; questions at once by several, never more than there are."""

    async def run():
        threads = ReaderThreads(2)
        first = await threads.run(threading.get_ident)
        assert {await threads.run(threading.get_ident) for _ in range(5)} == {first}
        both, most, now = threading.Barrier(2, timeout=30), [], []

        def read():
            now.append(1)
            most.append(len(now))
            now.pop()
            return threading.get_ident()

        met = await asyncio.gather(*(threads.run(lambda: (both.wait(), threading.get_ident())[1]) for _ in range(2)))
        assert len(set(met)) == 2
        assert set(await asyncio.gather(*(threads.run(read) for _ in range(20)))) <= set(met)
        assert max(most) <= 2
        threads.end()
        threads.join()

    asyncio.run(run())


def test_a_thread_whose_reader_gave_up_is_taken_again_when_it_is_done():
    """Until then nobody waits behind it while another thread is idle; then both take something on again."""

    async def run():
        threads = ReaderThreads(2)
        begun, go_on = threading.Event(), threading.Event()
        waiting = asyncio.create_task(threads.run(lambda: (begun.set(), go_on.wait(30))))
        await asyncio.to_thread(begun.wait, 30)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        for _ in range(3):
            await asyncio.wait_for(threads.run(lambda: None), 30)
        go_on.set()
        both = threading.Barrier(2, timeout=30)
        await asyncio.gather(threads.run(both.wait), threads.run(both.wait))
        threads.end()
        threads.join()

    asyncio.run(run())


def test_who_waits_when_the_threads_end_is_told_so():
    """What is being read comes to its end; what has not begun is an error that says what happened."""

    async def run():
        threads = ReaderThreads(1)
        begun, go_on = threading.Event(), threading.Event()
        reading = asyncio.create_task(threads.run(lambda: (begun.set(), go_on.wait(30))[1]))
        await asyncio.to_thread(begun.wait, 30)
        waiting = asyncio.create_task(threads.run(lambda: None))
        await asyncio.sleep(0)
        threads.end()
        go_on.set()
        assert await reading is True
        with pytest.raises(StoreClosed):
            await waiting
        threads.join()

    asyncio.run(run())
