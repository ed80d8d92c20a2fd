"""Each line marked ``E:`` must be an error for the type checkers: decorated callables keep their signatures."""

from __future__ import annotations

import xray


@xray.filtering_stage("keep")
def keep(pool: list[int], *, above: int = 1) -> list[int]:
    return [n for n in pool if n > above]


keep("no list")  # E: argument type
keep([1], below=2)  # E: unknown keyword
keep()  # E: missing argument
text: str = keep([1])  # E: return type
xray.filtering_stage("keep", pased="x")  # E: unknown field
xray.scoring_stage("score", score=1.5)  # E: no accessor
