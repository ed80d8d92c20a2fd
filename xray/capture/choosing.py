"""Choosing: what each sampling strategy keeps of a stage's candidates.

What the strategies mean is said where users find them, in ``xray.sampling``; this is how they are worked out.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import cached_property
from random import Random
from typing import TYPE_CHECKING, Any

import msgspec

from xray.capture.accessors import MISSING, compile_accessor
from xray.exceptions import PluginError
from xray.stage_types.base import Columns

if TYPE_CHECKING:
    from xray.sampling import Part, Strategy

_BANDS = 10


def choose(strategy: Strategy, columns: Columns, seed: int, notes: list[str] | None = None) -> list[int]:
    """The candidates that a strategy keeps.

    It never raises on what columns hold: a score that is no finite number counts as missing.

    Args:
        strategy: What to keep.
        columns: All candidates of a stage; ``data`` may hold ``msgspec.Raw``, which only ``per`` decodes.
        seed: The same seed gives the same choice, on every process of one Python version. Each part draws its own
            numbers, so that the order of a union does not matter.
        notes: Takes a sentence for each part that a plugin should have chosen and did not.

    Returns:
        Distinct positions in ascending order.
    """
    size = len(columns)
    view = _View(columns)
    chosen: set[int] = set()
    for part in strategy.parts:
        if part.n >= size and part.rule != "boundary":
            return list(range(size))
        if part.n and size:
            # A text seeds through SHA-512: the same in each process, whatever PYTHONHASHSEED is.
            rng = Random(f"{seed}:{part}")  # noqa: S311 - no secrets here
            rule = RULES.get(part.rule)
            chosen.update(_by_plugin(view, part, rng, notes) if rule is None else rule(view, part, rng))
    return sorted(chosen)


def decoded(value: Any) -> Any:
    """A value of a column, decoded where it is ``msgspec.Raw``.

    Raises:
        msgspec.DecodeError: The bytes are no msgpack.
    """
    return msgspec.msgpack.decode(value, strict=False) if isinstance(value, msgspec.Raw) else value


# --- how each strategy chooses --------------------------------------------------------------------------------------


class _View:
    """The columns of one stage as the strategies look at them, each thing worked out once."""

    def __init__(self, columns: Columns) -> None:
        self.columns = columns
        self.size = len(columns)

    def column(self, name: str) -> list[Any]:
        values = list(self.columns.column(name))[: self.size]
        return values + [None] * (self.size - len(values))

    @cached_property
    def verdicts(self) -> list[Any]:
        return self.column("verdict")

    @cached_property
    def scores(self) -> list[float | None] | None:
        return _numbers(self.column("score"))

    @cached_property
    def ranks(self) -> list[float | None] | None:
        return _numbers(self.column("rank"))

    @cached_property
    def quality(self) -> list[float | None] | None:
        """For each candidate a number that is higher the better it is, or None where the stage has none."""
        if self.scores is not None or self.ranks is None:
            return self.scores
        return [None if rank is None else -rank for rank in self.ranks]

    @cached_property
    def label_keys(self) -> list[Hashable]:
        return [_key(label) for label in self.column("reason_label")]

    def field(self, path: str) -> Iterable[Any]:
        name, _, rest = path.partition(".")
        if name not in self.columns.values:
            name, rest = "data", path
        values = self.column(name)
        if not rest:
            return map(_decoded_or_none, values)
        read = compile_accessor(rest)
        return (read(_decoded_or_none(value)) for value in values)

    def passing(self) -> tuple[list[int], list[int]]:
        """The positions that pass and those that fail."""
        if "selected" in self.verdicts:
            positions = range(self.size)
            return (
                [at for at in positions if self.verdicts[at] == "selected"],
                [at for at in positions if self.verdicts[at] != "selected"],
            )
        return (
            [at for at, verdict in enumerate(self.verdicts) if verdict == "passed"],
            [at for at, verdict in enumerate(self.verdicts) if verdict == "failed"],
        )


def _by_plugin(view: _View, part: Part, rng: Random, notes: list[str] | None) -> Iterable[int]:
    """What a plugin's strategy chooses; as many at random where it does not choose well."""
    from xray.plugins import installed

    try:
        found = installed().sampler(part.rule)
        if found is None:
            raise PluginError(f"No plugin brings the strategy '{part.rule}' in this process.")
        function, guard = found
        # A copy, so that nothing is changed behind our back; the generator is the call's own for the same reason.
        columns = Columns(list(view.columns.candidate_id), dict(view.columns.values), dict(view.columns.facts))
        mine = Random(rng.random())  # noqa: S311 - no secrets here
        chosen = guard.call_within(lambda: list(itertools.islice(function(columns, part.n, mine), view.size + 1)))
        if not all(type(at) is int and 0 <= at < view.size for at in chosen) or len(set(chosen)) > part.n:
            error = PluginError(f"It chose what are not at most {part.n} positions of {view.size} candidates.")
            guard.failed(error)
            raise error
        return chosen
    except Exception as error:
        if notes is not None:
            notes.append(f"{part} failed, {part.n} were taken at random ({type(error).__name__}: {error})"[:300])
        return rng.sample(range(view.size), part.n)


def _extreme(view: _View, n: int, pick: Callable[..., list[int]]) -> Sequence[int]:
    quality = view.quality
    if quality is None:
        return range(n) if pick is heapq.nlargest else range(view.size - n, view.size)
    have = [at for at, value in enumerate(quality) if value is not None]
    found = pick(n, have, key=quality.__getitem__)
    if len(found) < n:
        found += [at for at, value in enumerate(quality) if value is None][: n - len(found)]
    return found


def _some_of_each(keys: Iterable[Hashable], n: int, rng: Random) -> Iterable[int]:
    groups: defaultdict[Hashable, list[int]] = defaultdict(list)
    for position, key in enumerate(keys):
        groups[key].append(position)
    return (position for group in groups.values() for position in _some(group, n, rng))


def _some(group: Sequence[int], n: int, rng: Random) -> Sequence[int]:
    return group if n >= len(group) else rng.sample(group, n)


def _by_label(view: _View, part: Part, rng: Random) -> Iterable[int]:
    keys: list[Hashable] = [
        label if label is not None else (None, _key(verdict))
        for label, verdict in zip(view.label_keys, view.verdicts, strict=True)
    ]
    return _some_of_each(keys, part.n, rng)


def _boundary(view: _View, part: Part) -> Iterable[int]:
    found = _cutoff(view)
    if found is None:
        return ()
    numbers, cutoff = found
    distances = [(abs(number - cutoff), at) for at, number in enumerate(numbers) if number is not None]
    return [at for _, at in heapq.nsmallest(part.n, distances)]


def _cutoff(view: _View) -> tuple[list[float | None], float] | None:
    """The numbers that the cutoff is among, and the cutoff; see :func:`xray.sampling.boundary`."""
    passing, failing = view.passing()
    nothing: list[float | None] = [None] * view.size
    scores = view.scores or nothing
    over = [score for score in map(scores.__getitem__, passing) if score is not None]
    under = [score for score in map(scores.__getitem__, failing) if score is not None]
    if over and under:
        near = (max(over), min(under)) if max(over) < min(under) else (min(over), max(under))
        return scores, near[0] / 2 + near[1] / 2  # halved first: the sum of two large scores may be infinite
    if view.ranks is not None:
        kept = passing if passing or failing else range(view.size)
        return view.ranks, max(
            (rank for rank in map(view.ranks.__getitem__, kept) if rank is not None), default=0
        ) + 0.5
    if over or under:
        return scores, min(over) if over else max(under)
    return None


def _adaptive(view: _View, part: Part, rng: Random) -> Iterable[int]:
    outcomes = list(map(_key, view.verdicts))
    strata = _strata(view)
    weights = [len(stratum) * _variation([outcomes[at] for at in stratum]) for stratum in strata]
    shares = _allocated(part.n, [len(stratum) for stratum in strata], weights)
    return (at for stratum, share in zip(strata, shares, strict=True) for at in _some(stratum, share, rng))


def _strata(view: _View) -> list[list[int]]:
    quality = view.quality
    if quality is None:
        groups: defaultdict[Hashable, list[int]] = defaultdict(list)
        for at, key in enumerate(view.label_keys):
            groups[key].append(at)
        return list(groups.values())
    have = [at for _, at in sorted((value, at) for at, value in enumerate(quality) if value is not None)]
    edges = [len(have) * band // _BANDS for band in range(_BANDS + 1)]
    bands = [have[low:high] for low, high in itertools.pairwise(edges)]
    return [stratum for stratum in (*bands, [at for at, value in enumerate(quality) if value is None]) if stratum]


def _variation(outcomes: Sequence[Hashable]) -> float:
    """S of :func:`xray.sampling.adaptive`: the root of the Gini-Simpson index, with one more outcome imagined."""
    total = len(outcomes) + 1
    return math.sqrt(1 - (1 + sum(count * count for count in Counter(outcomes).values())) / (total * total))


def _allocated(n: int, sizes: Sequence[int], weights: Sequence[float]) -> list[int]:
    """How many of each stratum, by Wright's priority values: first one of each, the heaviest first, then the next."""
    shares = [0] * len(sizes)
    queue = [(-math.inf, -weight, stratum) for stratum, weight in enumerate(weights)]
    heapq.heapify(queue)
    for _ in range(min(n, sum(sizes))):
        _, weight, stratum = heapq.heappop(queue)
        shares[stratum] = share = shares[stratum] + 1
        if share < sizes[stratum]:
            heapq.heappush(queue, (weight / math.sqrt(share * (share + 1)), weight, stratum))
    return shares


RULES: dict[str, Callable[[_View, Part, Random], Iterable[int]]] = {
    "top": lambda view, part, _: _extreme(view, part.n, heapq.nlargest),
    "bottom": lambda view, part, _: _extreme(view, part.n, heapq.nsmallest),
    "random": lambda view, part, rng: rng.sample(range(view.size), part.n),
    "per": lambda view, part, rng: _some_of_each(map(_key, view.field(part.field or "")), part.n, rng),
    "per_label": _by_label,
    "boundary": lambda view, part, _: _boundary(view, part),
    "adaptive": _adaptive,
}
"""Each strategy's name and the positions that it chooses, which may repeat; its ``n`` is above 0 and below the size."""


_NO_NUMBERS = frozenset({str, bool, type(None)})


def _numbers(values: list[Any]) -> list[float | None] | None:
    """The finite numbers among values and None for everything else; None where there is no number at all."""
    kinds = set(map(type, values))
    if kinds <= _NO_NUMBERS:
        return None
    if kinds == {float} and all(map(math.isfinite, values)):
        return values
    numbers = [_number(value) for value in values]
    return None if numbers.count(None) == len(numbers) else numbers


def _number(value: Any) -> float | None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _key(value: Any) -> Hashable:
    """What groups equal values, as JSON understands equal: 1 is 1.0 and is not true; every NaN is one value."""
    if type(value) is str or value is None:
        return value
    if value is MISSING:
        return None
    try:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return ("number", value) if value == value else "NaN"  # noqa: PLR0124 - only NaN differs from itself
        return type(value).__name__, msgspec.json.encode(value, order="deterministic")
    except Exception:
        return type(value).__name__, "unreadable"


def _decoded_or_none(value: Any) -> Any:
    try:
        return decoded(value)
    except msgspec.DecodeError:
        return None
