"""Redaction: what must not be seen is gone, wherever it stands, and everything else stays as it was."""

from __future__ import annotations

import copy
import datetime as dt
import json
import re
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray.capture.redact import FAILED, REDACTED, Redactor
from xray.exceptions import ConfigurationError
from xray.stage_types.base import Columns

KEYS = st.sampled_from(["email", "E-Mail", "user", "User_Name", "x", "a@b", "user.email", "7", ""]) | st.text(
    max_size=3
)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6)
LEAVES |= st.sampled_from(["a@b", "to a@b and c@d", "a@b.c"])
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)
MAIL = re.compile(r"[a-z]@[a-z]")


def reference(value: Any, hides: Callable[[list[str]], bool], rewrite: Callable[[str], Any], path: list[str]) -> Any:
    """Redaction written as its definition: the keys that lead to a value decide, else the text itself."""
    if isinstance(value, dict):
        return {
            key: REDACTED if hides([*path, key]) else reference(item, hides, rewrite, [*path, key])
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [reference(item, hides, rewrite, path) for item in value]
    return rewrite(value) if isinstance(value, str) else value


def names(path: list[str]) -> list[str]:
    parts = [re.sub("[-_]", "", part).strip().casefold() for key in path for part in key.split(".")]
    return [part for part in parts[:-1] if not part.isdigit()] + parts[-1:]


@given(JSON)
def test_a_name_takes_the_value_under_every_key_of_that_name(value: Any):
    """At any depth, whatever the key's case, hyphens and underscores; nothing else changes."""
    expected = reference(value, lambda path: names(path)[-1] in ("email", "username"), lambda text: text, [])
    assert Redactor(["email", "user_name"]).apply(value) == expected


@given(JSON)
def test_a_dotted_name_takes_only_paths_that_end_in_it(value: Any):
    """The keys above must match too; positions in lists do not count."""
    expected = reference(value, lambda path: names(path)[-2:] == ["user", "email"], lambda text: text, [])
    assert Redactor("user.email").apply(value) == expected


@given(JSON)
def test_a_pattern_is_replaced_in_every_text_and_key(value: Any):
    """What matches is gone from the record, and no value is lost although keys become the same."""
    redacted = Redactor(MAIL).apply(value)

    def texts(item: Any) -> list[str]:
        if isinstance(item, dict):
            return [*item, *(text for one in item.values() for text in texts(one))]
        return [text for one in item for text in texts(one)] if isinstance(item, list) else [str(item)]

    assert not any(map(MAIL.search, texts(redacted)))

    def leaves(item: Any) -> list[str]:
        inner = item.values() if isinstance(item, dict) else item if isinstance(item, list) else None
        return [repr(item)] if inner is None else [leaf for one in inner for leaf in leaves(one)]

    expected = reference(value, lambda _: False, lambda text: MAIL.sub(REDACTED, text), [])
    assert leaves(redacted) == leaves(expected)


@given(JSON)
def test_the_value_given_is_never_changed(value: Any):
    """Not by names, not by patterns, not by callables; and what comes back shares no object or list with it."""
    before = copy.deepcopy(value)
    for rules in ("email", MAIL, lambda _, item: item):
        redacted = Redactor(rules).apply(value)
        assert value == before
        if isinstance(redacted, (dict, list)):
            redacted.clear()
            assert value == before


@given(JSON)
def test_no_rules_change_nothing(value: Any):
    """A redactor without rules gives an equal value, and says that it has none."""
    assert Redactor().apply(value) == value
    assert not Redactor(None)
    assert not Redactor([])
    assert Redactor("x")


@given(JSON)
def test_packed_values_are_decoded_first(value: Any):
    """Packed or not, at the top or within, the answer is the same."""
    value = json.loads(json.dumps(value), parse_int=lambda text: int(text) % 2**63)
    redactor = Redactor(["email", MAIL])
    packed = msgspec.Raw(msgspec.msgpack.encode(value))
    assert redactor.apply(packed) == redactor.apply(value)
    assert redactor.apply({"x": [packed]}) == redactor.apply({"x": [value]})


def test_a_callable_sees_every_value_with_its_path():
    """Texts, numbers, true, false and null; never an object or a list, which it could change."""
    seen = []

    def rule(path: str, value: Any) -> Any:
        seen.append((path, value))
        return f"<{value}>" if path.endswith(".price") else value

    value = {"user": {"emails": ["a", None]}, "price": 3, "flags": [{"price": True}], "empty": [{}]}
    assert Redactor(rule).apply(value, "data") == {
        "user": {"emails": ["a", None]},
        "price": "<3>",
        "flags": [{"price": "<True>"}],
        "empty": [{}],
    }
    assert seen == [
        ("data.user.emails.0", "a"),
        ("data.user.emails.1", None),
        ("data.price", 3),
        ("data.flags.0.price", True),
    ]
    seen.clear()
    Redactor(rule).apply({"x": "top"})
    assert seen == [("x", "top")]


def test_rules_apply_in_the_order_names_patterns_callables():
    """A callable never sees what a name or a pattern has taken."""
    seen = []
    Redactor([lambda _, value: seen.append(value), MAIL, "secret"]).apply({"secret": "s", "text": "by a@b"})
    assert seen == [f"by {REDACTED}"]


def test_a_callable_that_fails_leaves_nothing_of_the_value():
    """The failure is counted here and on every level that the redactor was made of."""

    def rule(path: str, value: Any) -> Any:
        if value == "bad":
            raise RuntimeError(value)
        return value

    process, stage = Redactor(rule), Redactor("name")
    redactor = Redactor.of(process, None, stage)
    assert redactor.apply(["bad", "good", {"x": "bad"}]) == [FAILED, "good", {"x": FAILED}]
    assert (redactor.failures, process.failures, stage.failures) == (2, 2, 2)


class Opaque:
    """Something whose inside nobody can look at."""


@pytest.mark.parametrize("value", [msgspec.Raw(b"\xc1"), msgspec.Raw(b""), Opaque(), [Opaque()], {"x": Opaque()}])
def test_what_cannot_be_looked_into_is_not_kept(value: Any):
    """Damaged bytes and strange objects are replaced, whatever the rules are."""
    for rules in ("email", MAIL, lambda _, item: item):
        redactor = Redactor(rules)
        redacted = redactor.apply(value)
        assert redacted in (FAILED, [FAILED], {"x": FAILED})
        assert redactor.failures == 1


def test_what_is_nested_too_deeply_is_not_kept():
    """Rather than the process running out of stack, or the inside being let through."""
    deep: Any = "a@b"
    for _ in range(100_000):
        deep = [deep]
    assert Redactor(MAIL).apply({"deep": deep}) == FAILED
    while isinstance(deep, list):  # taken apart by hand: freeing it at once would recurse just as deeply
        deep = deep.pop()


def test_what_a_callable_gives_is_made_json():
    """An answer that no store keeps does not spoil the record."""
    answers = {
        "a": float("inf"),
        "b": b"1234",
        "c": Opaque(),
        "d": dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
        "e": [2**80],
    }
    redacted = Redactor(lambda path, _: answers[path]).apply(dict.fromkeys(answers))
    json.dumps(redacted, allow_nan=False)
    assert redacted["d"] == "2026-01-01T00:00:00.000000Z"
    assert all("[xray: " in str(redacted[name]) for name in "abce")


def test_bytes_and_other_kinds_that_snapshots_hold():
    """Bytes in which a pattern matches go as a whole; dates and integers stay."""
    moment = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    value = {"a": b"mail a@b", "b": b"\xff\x00", "c": moment, "d": 12, 5: {"x": "a@b"}, "t": ("a@b", {"a@b"})}
    assert Redactor(MAIL).apply(value) == {
        "a": REDACTED, "b": b"\xff\x00", "c": moment, "d": 12, 5: {"x": REDACTED}, "t": [REDACTED, [REDACTED]],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "value", "expected"),
    [
        ("API_KEY", {"apiKey": 1, "api-key": 2, "keys": 3}, {"apiKey": REDACTED, "api-key": REDACTED, "keys": 3}),
        ("user.email", {"user": [{"email": 1}], "email": 2}, {"user": [{"email": REDACTED}], "email": 2}),
        ("users.3.email", {"users": [{"email": 1}]}, {"users": [{"email": REDACTED}]}),
        ("email", {"user.email": 1, "email.user": 2}, {"user.email": REDACTED, "email.user": 2}),
        ("user.email", {"user.email": 1}, {"user.email": REDACTED}),
        ("a.b.c", {"b": {"c": 1}, "a": {"b": {"c": 2}}}, {"b": {"c": 1}, "a": {"b": {"c": REDACTED}}}),
        ("2024", {"2024": 1, 2024: 2, "x": [3]}, {"2024": REDACTED, 2024: REDACTED, "x": [3]}),
        ("email, phone", {"email": 1, "phone": 2, "x": 3}, {"email": REDACTED, "phone": REDACTED, "x": 3}),
        ("x,re:a{1,2}", {"x": "a", "y": "baab"}, {"x": REDACTED, "y": f"b{REDACTED}b"}),
        ("re:.*", {"x": "abc", "": ""}, {REDACTED: REDACTED, "": ""}),
        (r"re:(?i)TOKEN=\S+", "my token=abc, ok", f"my {REDACTED} ok"),
        ("re:@", {"a@": 1, "b@": 2, "a[redacted]": 3},
         {"a[redacted] (4)": 1, "b[redacted]": 2, "a[redacted]": 3}),
    ],
)  # fmt: skip
def test_rules_by_example(rule: str, value: Any, expected: Any):
    """What a rule takes and what it leaves."""
    assert Redactor(rule).apply(value) == expected


def test_a_name_that_matches_the_path_takes_the_whole_value():
    """The path that a value comes from counts as keys above it."""
    assert Redactor("input").apply({"x": 1}, "input") == REDACTED
    assert Redactor("input.x").apply({"x": 1, "y": 2}, "input") == {"x": REDACTED, "y": 2}
    assert Redactor("x").apply(1, "input.x.0") == REDACTED


def test_columns_are_redacted_except_what_a_run_is_read_by():
    """Ids, verdicts, scores and ranks stay; labels, texts, candidates and a type's own columns do not."""
    columns = Columns(
        ["a@b", "c"],
        {
            "verdict": ["passed", None],
            "score": [1.0, None],
            "rank": [1, 2],
            "rank_before": [2, 1],
            "reason_label": ["a@b", None],
            "reason_text": ["because a@b", None],
            "scores": [{"a@b": 1.0, "email": 2.0}, None],
            "checks": [{"email": {"passed": True, "detail": "a@b"}}, None],
            "data": [msgspec.Raw(msgspec.msgpack.encode({"Email": "x", "to": "a@b"})), None],
            "output": [{"deep": [{"e_mail": 1}]}, 7],
            "returned": ["a@b", True],
            "source": ["a@b", "db"],
            "email": ["x", None],
        },
        {"requested": 2},
    )
    before = copy.deepcopy(columns.values["output"])
    redacted = Redactor(["email", MAIL]).apply_columns(columns)
    assert redacted.candidate_id == ["a@b", "c"]
    assert redacted.facts == {"requested": 2}
    assert redacted.values == {
        "verdict": ["passed", None],
        "score": [1.0, None],
        "rank": [1, 2],
        "rank_before": [2, 1],
        "reason_label": [REDACTED, None],
        "reason_text": [f"because {REDACTED}", None],
        "scores": [{REDACTED: 1.0, "email": REDACTED}, None],
        "checks": [{"email": REDACTED}, None],
        "data": [{"Email": REDACTED, "to": REDACTED}, None],
        "output": [{"deep": [{"e_mail": REDACTED}]}, 7],
        "returned": [REDACTED, True],
        "source": [REDACTED, "db"],
        "email": [REDACTED, None],
    }
    assert columns.values["output"] == before


def test_columns_keep_the_form_that_the_service_reads():
    """A rule that takes a whole column leaves no text where an object must stand, nor a number where a text must."""
    columns = Columns(["a"], {"scores": [{"x": 1.0}], "checks": [{"x": True}], "reason_text": ["t"], "score": [0.5]})
    redacted = Redactor(["scores", "checks", lambda path, _: 5]).apply_columns(columns)
    assert redacted.values == {"scores": [None], "checks": [None], "reason_text": ["5"], "score": [0.5]}


def test_levels_add_up():
    """Rules of the process, the pipeline and the stage all hold, each once."""
    calls = []
    rule = lambda _, value: calls.append(value) or value  # noqa: E731 - a rule as users write it
    redactor = Redactor.of(Redactor(["email", rule]), "phone", [MAIL, rule, "email"], None)
    assert redactor.apply({"email": 1, "phone": 2, "x": "a@b"}) == {"email": REDACTED, "phone": REDACTED, "x": REDACTED}
    assert calls == [REDACTED]
    assert not Redactor.of(None, None)


async def _coroutine(path: str, value: Any) -> Any:
    return value


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ("", "empty"), ("  ", "empty"), ("-_", "empty"), ("a..b", "empty part"), (".", "empty part"), ("a,,b", "empty"),
        ("*token*", "'re:'"), ("user.?", "'re:'"), ("re:", "missing"), ("re:(", "compiled"),
        ("re:" + "(" * 5_000, "compiled"),
        (5, "not 5"), ([5], "not 5"), ([None], "not None"), ({"email": 1}, "not {"), (b"email", "not b"),
        (re.compile(b"x"), "bytes"), (_coroutine, "async"), ([["email"]], "not ["),
    ],
)  # fmt: skip
def test_what_is_no_rule_is_refused_where_it_is_written(wrong: Any, hint: str):
    """A rule that could match nothing is an error, because the other way to find out is a leak."""
    with pytest.raises(ConfigurationError, match=re.escape(hint)) as caught:
        Redactor(wrong)
    assert caught.value.path == "redact"


def test_many_kinds_of_objects_do_not_fill_the_memory():
    """What is remembered of objects' keys is bounded, and forgetting it changes nothing."""
    redactor = Redactor(["email", MAIL])
    for number in range(12_000):
        assert redactor.apply({f"k{number}": 1, "email": 2}) == {f"k{number}": 1, "email": REDACTED}
    assert len(redactor._plans) <= 5_000
    wide = {f"k{number}@x": number for number in range(2_000)}
    assert list(redactor.apply(wide).values()) == list(range(2_000))


def test_threads_may_share_a_redactor():
    """Failures are counted exactly, and each thread gets its own values back."""

    def rule(path: str, value: Any) -> Any:
        raise RuntimeError

    redactor = Redactor(["email", rule])
    wrong: list[Any] = []

    def work(number: int) -> None:
        for turn in range(300):
            value = {"email": 1, f"k{number}-{turn}": 2}
            if redactor.apply(value) != {"email": REDACTED, f"k{number}-{turn}": FAILED}:
                wrong.append(value)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert redactor.failures == 6 * 300
