"""Ids: of the right form, in order of time, distinct across threads and forks."""

from __future__ import annotations

import os
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray.ids import id_text, is_id, new_id


@given(time_ns=st.integers(0, 2**47 * 10**6), bits=st.integers(0, 2**62 - 1))
def test_ids_are_uuids_of_version_seven_with_their_time(time_ns: int, bits: int):
    """RFC 9562: version, variant, milliseconds and the random part stand where they belong."""
    text = id_text(time_ns, bits)
    parsed = uuid.UUID(text)
    assert is_id(text)
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert parsed.int >> 80 == time_ns // 10**6
    assert parsed.int & (2**62 - 1) == bits


@given(st.lists(st.integers(0, 2**60), min_size=2))
def test_ids_sort_by_time(moments: list[int]):
    """As text, to a quarter of a microsecond."""
    texts = [id_text(moment, 0) for moment in sorted(moments)]
    assert texts == sorted(texts)


@pytest.mark.parametrize(
    "wrong", ["", "x" * 36, "01A1FC11-19A7-778F-982D-9CDECC158D75", 7, None, "01a1fc1119a7778f982d9cdecc158d75"]
)
def test_what_is_no_id(wrong: object):
    """Only the canonical text form is one."""
    assert not is_id(wrong)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_draws_other_numbers():
    """Parent and child do not make the same ids after a fork."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, "".join(new_id()[-12:] for _ in range(50)).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    child = os.read(read, 50 * 12).decode()
    os.close(read)
    os.close(write)
    ours = {new_id()[-12:] for _ in range(50)}
    assert len(ours) == 50
    assert not ours & {child[n : n + 12] for n in range(0, len(child), 12)}
