"""The filtering stage type: each candidate passes or fails, for a reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from operator import itemgetter
from typing import Any

from xray.capture.call import Alignment, Items, StageCall
from xray.capture.frames import is_frame
from xray.figures import Figure, bars, present
from xray.hookspecs import hookimpl
from xray.metrics import Metric, MetricValue
from xray.stage_types.base import Columns, Field, StageType


class FilteringStage(StageType):
    """Keeps some of the candidates that come in and rejects the others.

    The return value may be every candidate with its flag, only the survivors, a boolean mask over the inputs, or a
    ``(kept, rejected)`` pair.
    """

    name = "filtering"
    meaning = "Decides for each candidate whether it goes on."
    fields = (
        Field("passed", "accessor", "Whether the candidate passed.", ("passed",)),
        Field("reason_label", "accessor", "A short code for why: price_too_high.", ("reason_label",)),
        Field("reason_text", "accessor", "Why, in prose.", ("reason_text",)),
    )
    unmeasured_fields = ("reason_text",)
    metrics = (
        Metric("passed", "candidates", "Candidates that passed."),
        Metric("failed", "candidates", "Candidates that were rejected."),
        Metric("fail_ratio", "ratio", "Rejected candidates as a share of those judged.", bad="high"),
        Metric("label_counts", "candidates", "Rejected candidates by reason label.", kind="table"),
        Metric("label_share", "ratio", "Each reason label's share of the rejected candidates.", kind="table"),
        Metric("unlabelled", "candidates", "Rejected candidates without a reason label.", bad="high"),
        Metric("unknown_labels", "candidates", "Rejected candidates whose label is none of labels=.", bad="high"),
    )

    def candidates_in(self, result: Any) -> Sequence[Sequence[Any]]:
        """A pair of lists is (kept, rejected); else the list itself; a NumPy mask as a list."""
        if isinstance(result, tuple) and len(result) == 2 and all(_is_list(part) for part in result):
            kept, rejected = result
            return [kept, rejected]
        return super().candidates_in(result)

    def extract(self, call: StageCall) -> Columns:
        """See :class:`StageType`; which shape was recognised is kept as the fact ``shape``."""
        if call.output is None:
            return Columns([])
        if len(call.parts) == 2:
            columns = _from_pair(call, call.parts[0], call.parts[1])
        elif call.inputs is not None and _is_mask(call.output, call.inputs):
            columns = _from_mask(call.inputs, call.output)
        else:
            flags = call.output.read("passed")
            columns = _from_flags(call, call.output, flags) if flags else _from_survivors(call, call.output)
        labels = call.options.get("labels")
        if labels is not None:
            columns.facts["labels"] = sorted(map(str, labels))
        return columns

    def compute(self, columns: Columns) -> dict[str, MetricValue]:
        """See :class:`StageType`; ``fail_ratio`` = failed / (passed + failed), absent where nothing was judged."""
        verdicts = columns.column("verdict")
        passed, failed = verdicts.count("passed"), verdicts.count("failed")
        judged = Counter(zip(verdicts, columns.column("reason_label"), strict=True))
        rejected_for = [
            (label, n) for (verdict, label), n in judged.items() if verdict == "failed" and label is not None
        ]
        label_counts = dict(sorted(rejected_for, key=itemgetter(1), reverse=True))
        labelled = sum(label_counts.values())
        metrics: dict[str, MetricValue] = {
            "input_count": len(columns) - columns.facts.get("unknown_outputs", 0),
            "output_count": passed,
            "passed": passed,
            "failed": failed,
            "label_counts": label_counts,
            "label_share": {label: count / failed for label, count in label_counts.items()},
            "unlabelled": failed - labelled,
        }
        if passed + failed:
            metrics["fail_ratio"] = failed / (passed + failed)
        expected = columns.facts.get("labels")
        if expected is not None:
            known = set(expected)
            metrics["unknown_labels"] = sum(count for label, count in rejected_for if label not in known)
        return metrics

    def panel(self, stage: Mapping[str, Any]) -> list[Figure]:
        """How many passed, and what the others were rejected for."""
        metrics = stage.get("metrics") or {}
        labels = dict(metrics.get("label_counts") or {})
        if metrics.get("unlabelled"):
            labels["(no label)"] = metrics["unlabelled"]
        verdicts = {name: metrics[name] for name in ("passed", "failed") if name in metrics}
        return present([bars("Verdicts", verdicts, "candidates"), bars("Rejected for", labels, "candidates")])


def _verdicts(flags: Sequence[Any]) -> list[str | None]:
    return [None if flag is None else "passed" if flag else "failed" for flag in flags]


def _labels(values: list[Any] | None) -> list[Any] | None:
    if values is None or set(map(type, values)) <= {str, type(None)}:
        return values
    return [None if value is None else str(value) for value in values]


def _is_mask(output: Items, inputs: Items) -> bool:
    if output.are_records:
        return False
    return len(output) == len(inputs) > 0 and all(type(value) is bool for value in output.values)


def _from_mask(inputs: Items, mask: Items) -> Columns:
    alignment = Alignment(inputs, inputs)
    alignment.facts["shape"] = "mask"
    return alignment.columns(verdict=_verdicts(mask.values))


def _from_flags(call: StageCall, output: Items, flags: list[Any]) -> Columns:
    alignment = Alignment(call.inputs, output)
    alignment.facts["shape"] = "flags"
    verdict = alignment.spread(_verdicts(flags)) or []
    # An input that the stage did not return at all did not go on either.
    silent = alignment.without_output
    for row in silent:
        verdict[row] = "failed"
    if silent:
        alignment.facts["dropped_silently"] = len(silent)
    return alignment.columns(
        verdict=verdict,
        reason_label=alignment.spread(_labels(output.read("reason_label"))),
        reason_text=alignment.spread(output.read("reason_text")),
    )


def _from_survivors(call: StageCall, survivors: Items) -> Columns:
    alignment = Alignment(call.inputs, survivors)
    alignment.facts["shape"] = "survivors"
    # Of a candidate that has no id nobody can say whether it is among the survivors; nor of one that a generator had
    # not come to when its consumer went away.
    unknown: Container[int] = call.inputs.without_id if call.inputs is not None else frozenset()
    if call.is_abandoned:
        unknown = range(len(alignment.output_of))
    return alignment.columns(
        verdict=[
            "passed" if place is not None else None if row in unknown else "failed"
            for row, place in enumerate(alignment.output_of)
        ]
    )


def _from_pair(call: StageCall, kept: Items, rejected: Items) -> Columns:
    both = kept.joined(rejected)
    alignment = Alignment(call.inputs, both)
    alignment.facts["shape"] = "pair"
    flags = [True] * len(kept) + [False] * len(rejected)
    labels = [None] * len(kept) + (_beside(rejected, "reason_label", 1) or [None] * len(rejected))
    texts = [None] * len(kept) + (_beside(rejected, "reason_text", 2) or [None] * len(rejected))
    verdict = alignment.spread(_verdicts(flags)) or []
    silent = alignment.without_output
    for row in silent:
        verdict[row] = "failed"
    if silent:
        alignment.facts["dropped_silently"] = len(silent)
    return alignment.columns(
        verdict=verdict, reason_label=alignment.spread(_labels(labels)), reason_text=alignment.spread(texts)
    )


def _beside(rejected: Items, field: str, place: int) -> list[Any] | None:
    """A field of the rejected candidates, or what stands beside them: ``(candidate, "label", "text")``."""
    found = rejected.read(field)
    if (
        found is None
        and not rejected.are_records
        and any(isinstance(value, list) and len(value) > place for value in rejected.values)
    ):
        found = [value[place] if isinstance(value, list) and len(value) > place else None for value in rejected.values]
    return found


def _is_list(part: Any) -> bool:
    return isinstance(part, (list, tuple)) or is_frame(part)


@hookimpl
def xray_stage_types() -> list[StageType]:
    """The filtering stage type."""
    return [FilteringStage()]
