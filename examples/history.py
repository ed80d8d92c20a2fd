"""Three weeks of a pipeline's past, built by hand, so that there is something to see over time.

The pipeline ``review_moderation`` decides every few hours which of the reviews that came in are published:

1. ``incoming`` (retrieval) takes what came in from the shop and from the app.
2. ``policies`` (filtering) rejects ``spam``, ``rude``, ``off_topic`` and ``duplicate``.
3. ``helpfulness`` (scoring) gives each of the others a number.
4. ``front_page`` (selection) picks the best five.

After two weeks version 2026.11 took over, with a model for spam that is too strict: twice as many reviews are rejected,
and what is left scores lower. Now and then the model did not answer at all, and the run failed.

What to look at: on the page Trends of the dashboard the fail ratio of ``policies`` has a step, and
``spam`` is what grew.
On the page Compare the two versions stand side by side.
"""

from __future__ import annotations

import datetime as dt
import random

from xray.hand_built import Run, Stage

LABEL = "review_moderation"
EVERY = dt.timedelta(hours=4)
DAYS = 21
STRICT_AFTER_DAYS = 14
FAILS_EVERY = 41
_BEGINS_MS = {"incoming": 0, "policies": 16, "helpfulness": 118, "front_page": 162}
_REASONS = ("spam", "rude", "off_topic", "duplicate")
_HEALTHY, _STRICT = (4, 3, 2, 1), (14, 3, 2, 1)
_WORDS = ("sturdy", "late", "bright", "cheap", "lovely", "broken", "quiet", "heavy", "soft", "sharp")


def runs(now: dt.datetime | None = None) -> list[Run]:
    """The runs, the oldest first; the same ones each time, but for their ids and times.

    Args:
        now: The end of the three weeks; by default this moment.
    """
    end = now or dt.datetime.now(dt.UTC)
    count = int(dt.timedelta(days=DAYS) / EVERY)
    strict_from = int(dt.timedelta(days=STRICT_AFTER_DAYS) / EVERY)
    draw = random.Random(7)
    return [_run(number, end - EVERY * (count - number), number >= strict_from, draw) for number in range(count)]


def _run(number: int, began: dt.datetime, is_strict: bool, draw: random.Random) -> Run:
    reviews = [
        {
            "id": f"review-{number:03}-{place:02}",
            "text": " ".join(draw.sample(_WORDS, 3)),
            "stars": draw.choice((1, 2, 3, 4, 4, 5, 5)),
            "source": draw.choice(("shop", "shop", "app")),
        }
        for place in range(draw.randint(25, 60))
    ]
    run = Run(
        LABEL, key=f"batch-{number:03}", version="2026.11" if is_strict else "2026.10", environment="production",
        started_at=began, input={"reviews": len(reviews)}, tags=["nightly"] if began.hour < 6 else ["daily"],
    )  # fmt: skip
    incoming = _stage(run, began, "incoming", "retrieval", draw.uniform(8, 14))
    for review in reviews:
        incoming.candidate(review["id"], data=review, source=review["source"])
    if number % FAILS_EVERY == FAILS_EVERY - 1:
        error = TimeoutError("the spam model did not answer")
        _stage(run, began, "policies", "filtering", 5000.0).update(error=error)
        return run.update(error=error, duration_ms=5020.0)
    policies = _stage(run, began, "policies", "filtering", draw.uniform(30, 60) * (1.6 if is_strict else 1))
    kept = _judge(policies, reviews, is_strict, draw)
    helpfulness = _stage(run, began, "helpfulness", "scoring", draw.uniform(20, 40))
    scored = _score(helpfulness, kept, is_strict, draw)
    best = sorted(scored, key=lambda pair: -pair[1])[:5]
    front_page = _stage(run, began, "front_page", "selection", draw.uniform(0.2, 0.6))
    chosen = {review["id"] for review, _ in best}
    for review, score in scored:
        front_page.candidate(review["id"], verdict="selected" if review["id"] in chosen else None, score=score)
    return run.update(output=sorted(chosen), duration_ms=draw.uniform(164, 190))


def _stage(run: Run, began: dt.datetime, name: str, kind: str, duration_ms: float) -> Stage:
    at = began + dt.timedelta(milliseconds=_BEGINS_MS[name])
    return run.stage(name, kind, started_at=at, duration_ms=duration_ms)


def _judge(stage: Stage, reviews: list[dict], is_strict: bool, draw: random.Random) -> list[dict]:
    share = 0.6 if is_strict else 0.3
    kept = []
    for review in reviews:
        if draw.random() < share:
            label = draw.choices(_REASONS, _STRICT if is_strict else _HEALTHY)[0]
            stage.candidate(review["id"], verdict="failed", reason_label=label, data=review)
        else:
            kept.append(review)
            stage.candidate(review["id"], verdict="passed", data=review)
    return kept


def _score(stage: Stage, kept: list[dict], is_strict: bool, draw: random.Random) -> list[tuple[dict, float]]:
    scored = []
    for review in kept:
        score = round(min(1.0, max(0.0, draw.gauss(0.5 if is_strict else 0.62, 0.15))), 3)
        stage.candidate(review["id"], score=score, data=review)
        scored.append((review, score))
    return scored


if __name__ == "__main__":
    from xray.client import Client

    with Client() as client:
        for each in runs():
            client.send(each)
    print(f"Sent {len(runs())} runs of {LABEL}.")
