"""The stage type ``guardrail``."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from xray.capture.call import Alignment, StageCall
from xray.figures import Figure, figure, present
from xray.metrics import Metric, MetricValue
from xray.stage_types.base import Columns, Field, StageType
from xray_guardrail.calibration import calibration

BLOCKED = frozenset({"block", "blocked", "flag", "flagged", "violation", "unsafe", "fail", "failed", "reject"})
ALLOWED = frozenset({"allow", "allowed", "ok", "safe", "pass", "passed", "clean", "accept"})
"""The words that verdicts may be said with, beside true and false."""


class GuardrailStage(StageType):
    """Holds items against policies; an item that violates any is blocked.

    A blocked item has the verdict ``failed`` and the first policy that it violates, in the order of the policies'
    names, as its reason label. The verdicts of all policies are its ``checks``, so that ``$checksFailed.POLICY`` and
    ``$checkFailRatio.POLICY`` can be asked about. An item that came in and did not go out is blocked too.
    """

    name = "guardrail"
    meaning = "Holds items against policies."
    fields = (
        Field("policies", "accessor", "Policy to verdict: true where it is violated.", ("policies",)),
        Field("confidence", "accessor", "How sure the verdict on the item is, 0 to 1.", ("confidence",)),
        Field("expected", "accessor", "Whether it should have been blocked.", ("expected",)),
        Field("previous", "accessor", "Whether it was blocked before.", ("previous",)),
        Field("reason_text", "accessor", "Why, in prose.", ("reason_text",)),
    )
    columns = ("confidence", "expected", "previous")
    reads_inputs = ("expected", "previous")
    metrics = (
        Metric("blocked", "candidates", "Items that were blocked."),
        Metric("block_ratio", "ratio", "Blocked / judged.", bad="high"),
        Metric("blocked_by_policy", "candidates", "Items that violate each policy.", kind="table"),
        Metric("policy_confidence", "ratio", "Mean confidence of each policy's verdicts.", kind="table"),
        Metric("confidence_mean", "ratio", "Mean confidence of the verdicts on items.", bad="low"),
        Metric("confidence_min", "ratio", "The lowest confidence of a verdict.", bad="low"),
        Metric("accuracy", "ratio", "Share of right verdicts among items of which the right one is known.", bad="low"),
        Metric("wrongly_blocked", "candidates", "Blocked items that should have passed.", bad="high"),
        Metric("wrongly_passed", "candidates", "Passed items that should have been blocked.", bad="high"),
        Metric("calibration_error", "ratio", "Expected calibration error, in ten bins of equal width.", bad="high"),
        Metric("overconfidence", "ratio", "Mean confidence - accuracy, where both are known.", bad="high"),
        Metric("calibration_bins", "", "The bins that the calibration error is made of.", kind="data", indexed=False),
        Metric("flips", "candidates", "Items whose verdict is not what it was before.", bad="high"),
        Metric("flip_ratio", "ratio", "Flips / items whose earlier verdict is known.", bad="high"),
        Metric("flips_to_blocked", "candidates", "Items that passed before and are blocked now."),
        Metric("flips_to_passed", "candidates", "Items that were blocked before and pass now."),
    )

    def extract(self, call: StageCall) -> Columns:
        """See :class:`StageType`."""
        if call.output is None:
            return Columns([])
        rows = Alignment(call.inputs, call.output)
        tables = [_policies(said) for said in rows.spread(call.output.read("policies")) or [None] * len(rows.ids)]
        violated = [[policy for policy, said in sorted((table or {}).items()) if said["flagged"]] for table in tables]
        gone = [place is None for place in rows.output_of]
        columns = rows.columns(
            verdict=["failed" if no or out else "passed" for no, out in zip(violated, gone, strict=True)],
            reason_label=[no[0] if no else "dropped" if out else None for no, out in zip(violated, gone, strict=True)],
            reason_text=[None if text is None else str(text) for text in _read("reason_text", call, rows)],
            confidence=[_share(value) for value in _read("confidence", call, rows)],
            expected=[_is_blocked(value) for value in _read("expected", call, rows)],
            previous=[_is_blocked(value) for value in _read("previous", call, rows)],
        )
        if any(table is not None for table in tables):
            columns.values["checks"] = [
                None if table is None else {policy: _check(said) for policy, said in table.items()} for table in tables
            ]
        columns.facts["came"] = rows.input_count
        return columns

    def compute(self, columns: Columns) -> dict[str, MetricValue]:
        """See :class:`StageType`; calibration is that of :func:`xray_guardrail.calibration.calibration`."""
        blocked = [verdict == "failed" for verdict in columns.column("verdict")]
        found: dict[str, MetricValue] = {
            "input_count": columns.facts.get("came", len(columns)),
            "output_count": blocked.count(False),
            "blocked": blocked.count(True),
        }
        if blocked:
            found["block_ratio"] = blocked.count(True) / len(blocked)
        found |= _by_policy(columns.column("checks"))
        sure = columns.column("confidence")
        given = [value for value in sure if value is not None]
        if given:
            found |= {"confidence_mean": math.fsum(given) / len(given), "confidence_min": min(given)}
        found |= _against_expected(blocked, columns.column("expected"), sure)
        pairs = [(was, now) for was, now in zip(columns.column("previous"), blocked, strict=True) if was is not None]
        if pairs:
            to_blocked, to_passed = pairs.count((False, True)), pairs.count((True, False))
            flips = to_blocked + to_passed
            found |= {"flips": flips, "flip_ratio": flips / len(pairs)}
            found |= {"flips_to_blocked": to_blocked, "flips_to_passed": to_passed}
        return found

    def panel(self, stage: Mapping[str, Any]) -> list[Figure]:
        """The tables among the metrics, and how sure verdicts were beside how often they were right."""
        bins = (stage.get("metrics") or {}).get("calibration_bins")
        return super().panel(stage) + present([_reliability(bins)])


def _reliability(bins: Any) -> Figure | None:
    """The diagram of the bins of :func:`xray_guardrail.calibration.calibration`; None where they are none."""
    if not isinstance(bins, list) or not bins:
        return None
    try:
        sure = [float(each["confidence"]) for each in bins]
        right = [float(each["right"]) for each in bins]
        texts = [f"{int(each['count']):,} verdicts" for each in bins]
    except (KeyError, TypeError, ValueError):
        return None  # of another version of this plugin, or of somebody else's type of this name
    found = {"type": "scatter", "mode": "lines+markers", "name": "verdicts", "x": sure, "y": right, "text": texts}
    ideal = {"type": "scatter", "mode": "lines", "name": "as sure as right", "x": [0, 1], "y": [0, 1],
             "line": {"dash": "dot"}, "hoverinfo": "skip"}  # fmt: skip
    share = {"tickformat": ".0%", "range": [-0.02, 1.02]}
    return figure(
        "Whether confidence can be trusted", [found, ideal], x="confidence", y="share that was right",
        xaxis=share, yaxis=share,
    )  # fmt: skip


def _by_policy(tables: list[Any]) -> dict[str, MetricValue]:
    counts: Counter[str] = Counter()
    sure: dict[str, list[float]] = {}
    for table in tables:
        for policy, said in (table or {}).items():
            counts[policy] += not said["passed"]
            confidence = (said.get("detail") or {}).get("confidence")
            if confidence is not None:
                sure.setdefault(policy, []).append(confidence)
    found: dict[str, MetricValue] = {}
    if counts:
        found["blocked_by_policy"] = dict(counts)
    if sure:
        found["policy_confidence"] = {policy: math.fsum(values) / len(values) for policy, values in sure.items()}
    return found


def _against_expected(blocked: list[bool], expected: list[Any], sure: list[Any]) -> dict[str, MetricValue]:
    known = [
        (is_blocked, should, confidence)
        for is_blocked, should, confidence in zip(blocked, expected, sure, strict=True)
        if should is not None
    ]
    if not known:
        return {}
    found: dict[str, MetricValue] = {
        "accuracy": sum(is_blocked == should for is_blocked, should, _ in known) / len(known),
        "wrongly_blocked": sum(is_blocked and not should for is_blocked, should, _ in known),
        "wrongly_passed": sum(should and not is_blocked for is_blocked, should, _ in known),
    }
    how = calibration((confidence, blocks == should) for blocks, should, confidence in known if confidence is not None)
    if how is not None:
        found |= {
            "calibration_error": how["error"], "overconfidence": how["gap"], "calibration_bins": how["bins"],
        }  # fmt: skip
    return found


def _policies(said: Any) -> dict[str, dict[str, Any]] | None:
    """Policy → ``{flagged, confidence}`` of every policy whose verdict can be read."""
    if not isinstance(said, Mapping):
        return None
    table: dict[str, dict[str, Any]] = {}
    for policy, verdict in said.items():
        confidence = None
        flagged = verdict
        if isinstance(verdict, Mapping):
            flagged, confidence = verdict.get("flagged"), _share(verdict.get("confidence"))
        is_blocked = _is_blocked(flagged)
        if is_blocked is not None:
            table[str(policy)] = {"flagged": is_blocked, "confidence": confidence}
    return table


def _check(said: Mapping[str, Any]) -> dict[str, Any]:
    check: dict[str, Any] = {"passed": not said["flagged"]}
    if said["confidence"] is not None:
        check["detail"] = {"confidence": said["confidence"]}
    return check


def _is_blocked(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    word = value.strip().lower() if isinstance(value, str) else None
    return True if word in BLOCKED else False if word in ALLOWED else None


def _share(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) and 0 <= value <= 1 else None


def _read(field: str, call: StageCall, rows: Alignment) -> list[Any]:
    """A field of each row as the item went out, else as it came in."""
    assert call.output is not None
    found = rows.spread(call.output.read(field)) or [None] * len(rows.ids)
    came = (None if call.inputs is None else call.inputs.read(field)) or []
    return [value if value is not None or row >= len(came) else came[row] for row, value in enumerate(found)]
