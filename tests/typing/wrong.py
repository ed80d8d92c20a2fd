# pyright: strict
"""Each line marked ``E:`` must be an error for the type checkers: signatures are kept, fields are checked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import xray
from xray.sampling import per, top


@dataclass
class Judged:
    id: str
    passed: bool


@xray.filtering_stage("keep")
def keep(pool: list[int], *, above: int = 1) -> list[int]:
    return [n for n in pool if n > above]


@xray.scoring_stage("score")
async def score(pool: list[int]) -> list[float]:
    return [0.0 for _ in pool]


@xray.generation_stage
def titles() -> Iterator[str]:
    yield "title"


@xray.pipeline("shop", version="1")
class Shop:
    @xray.entrypoint
    def find(self, words: str) -> int:
        return len(words)


def shout(text: str) -> str:
    return text.upper()


keep("no list")  # E: argument type
keep([1], below=2)  # E: unknown keyword
keep()  # E: missing argument
text: str = keep([1])  # E: return type
numbers: list[float] = score([1])  # E: a coroutine, not its result
lengths: list[int] = list(titles())  # E: yielded type
Shop().find(3)  # E: argument type of a method
Shop().find("red").upper()  # E: result of a method
Shop().serch("red")  # E: unknown method
xray.propagate(shout)(3)  # E: argument type through propagate

# Fields are names, paths, positions or callables; with of= a callable must fit the candidates.
xray.filtering_stage("keep", pased="x")  # E: unknown field
xray.scoring_stage("score", score=1.5)  # E: no accessor
xray.selection_stage("pick", source="x")  # E: a field of another type
xray.filtering_stage(of=Judged, passed=lambda judged: judged.pased)  # E: no such attribute
xray.scoring_stage(of=Judged, score=lambda judged: judged.id.price)  # E: no such attribute further down
xray.ranking_stage(of=Judged, score=len)  # E: a callable over another type
xray.selection_stage(of=Judged, score=lambda: 1)  # E: a callable without a parameter
xray.raw_stage("rules", id="id")  # E: a raw stage has no candidates

# What is given to runs, strategies and calls from inside.
xray.run("shop", sample_rate="all")  # E: no number
xray.run()  # E: no label
xray.pipeline("shop", keep_if=3)  # E: no condition
xray.score("a", "high")  # E: no number
xray.reject("a", lable="price_too_high")  # E: unknown keyword
xray.note(3)  # E: no text
top("3")  # E: no number
per(3)  # E: missing argument
top(3) | 4  # E: no strategy
