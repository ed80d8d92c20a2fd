"""What is redacted leaves the process in no event, whichever way it came in."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

import xray
from tests.sdk.recording import EVERY_WAY, recording

pytestmark = EVERY_WAY

SECRET = "s3cr3t-0042"


class Judge:
    """Brings the secret in by every way there is."""

    @xray.filtering_stage("judge", passed="ok", reason_label="label", reason_text="why", checks="checks")
    def judge(self, pool: list[dict[str, Any]], token: str) -> list[dict[str, Any]]:
        stage = xray.current_stage()
        xray.note(f"noted {SECRET}")
        xray.llm(model="m", prompt=SECRET)
        xray.reject("c1", f"label {SECRET}", f"text {SECRET}")
        stage.set_metadata(token=SECRET)
        return [
            {**c, "ok": False, "label": f"l {SECRET}", "why": f"because {SECRET}", "checks": {"c": (False, SECRET)}}
            for c in pool
        ]

    @xray.generation_stage("make")
    def make(self, prompt: str) -> dict[str, str]:
        return {"text": f"made of {prompt}", "deep": {"list": [SECRET]}}  # type: ignore[dict-item]

    @xray.raw_stage("fail")
    def fail(self) -> None:
        raise ValueError(f"cannot use {SECRET}")


@pytest.mark.parametrize("tier", ["full", "sampled", "summary"])
@pytest.mark.parametrize("level", ["process", "pipeline"])
def test_a_pattern_leaves_nothing_in_any_event(tier: str, level: str):
    """Arguments, results, candidates, labels, notes, model calls, metadata and messages of exceptions."""
    rule = re.compile(r"s3cr3t-\d+")
    process = {"redact": rule} if level == "process" else {}
    pipeline_rule = rule if level == "pipeline" else None

    @xray.pipeline("private", redact=pipeline_rule, tags=[f"tag {SECRET}"])
    def private(secret: str) -> str:
        judge = Judge()
        judge.judge([{"id": "c1", "note": SECRET}, {"id": "c2", SECRET: 1}], token=secret)
        judge.make(secret)
        judge.fail()
        return secret

    with recording(capture=tier, **process) as recorded, pytest.raises(ValueError, match="cannot use"):
        private(SECRET)
    assert len(recorded.stages) == 3
    for event in recorded.events:
        assert SECRET.encode() not in msgspec.msgpack.encode(event), event["type"]


def test_metrics_are_those_of_all_candidates_although_their_values_are_gone():
    """Counts and scores stay exact; a label that may not be read is counted under what stands for it."""

    @xray.filtering_stage("judge", passed="ok", reason_label="label", redact=re.compile(r"s3cr3t-\d+"))
    def judge(pool: list[int]) -> list[dict[str, Any]]:
        return [{"id": n, "ok": n > 2, "label": f"l {SECRET}" if n else "plain"} for n in pool]

    with recording() as recorded:
        judge([0, 1, 2, 3])
    metrics = recorded.stage("judge")["metrics"]
    assert (metrics["passed"], metrics["failed"], metrics["fail_ratio"]) == (1, 3, 0.75)
    assert metrics["label_counts"] == {"l [redacted]": 2, "plain": 1}


def test_the_users_values_stay_as_they_are():
    """Redaction touches the record, never the values that go through."""
    pool = [{"id": 1, "email": SECRET}]

    @xray.ranking_stage("rank", redact="email")
    def rank(candidates: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return candidates

    with recording() as recorded:
        result = rank(pool)
    assert result is pool
    assert pool == [{"id": 1, "email": SECRET}]
    assert recorded.rows("rank")["1"]["data"] == {"id": 1, "email": "[redacted]"}
