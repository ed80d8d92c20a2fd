"""Sampling: which candidates of a stage are kept where not all are.

Strategies combine with ``|``, which keeps what any of them chooses::

    from xray.sampling import boundary, per_label, top

    @filtering_stage("price_filter", capture=top(20) | boundary(20) | per_label(5))
    def filter(...): ...

The same strategy may be written as text, for environment variables: ``top(20) | boundary(20) | per("source", 3)``.
Plugins bring more of them, which are named in the same way.
Metrics are computed before sampling, over all candidates; a sample is for looking at, never for counting.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Literal, get_args

from xray.capture.choosing import RULES, choose, decoded
from xray.exceptions import ConfigurationError, did_you_mean

__all__ = [
    "DEFAULT_STRATEGY",
    "MAX_N",
    "MODES",
    "Capture",
    "Mode",
    "Part",
    "Strategy",
    "adaptive",
    "bottom",
    "boundary",
    "choose",
    "decoded",
    "parse_capture",
    "per",
    "per_label",
    "random",
    "strategy",
    "top",
]

Mode = Literal["summary", "sampled", "full"]
MODES: tuple[Mode, ...] = get_args(Mode)

MAX_N = 1_000_000_000
"""The largest number that a strategy takes."""


@dataclass(frozen=True, slots=True)
class Part:
    """One strategy of a union: ``per("source", 2)`` is ``Part("per", 2, "source")``.

    Args:
        rule: The strategy's name.
        n: How many it keeps.
        field: The column or path that ``per`` groups by.
    """

    rule: str
    n: int
    field: str | None = None

    def __post_init__(self) -> None:
        _check_rule(self.rule)
        if type(self.n) is not int or not 0 <= self.n <= MAX_N:
            raise _wrong(f"{self.rule}(…) takes a whole number from 0 to {MAX_N:,}, not {self.n!r}.")
        if (self.rule == "per") != (self.field is not None):
            raise _wrong("per(field, n) takes a field and a number, every other strategy a number alone.")
        if self.field is not None and (not isinstance(self.field, str) or not self.field.strip(". ")):
            raise _wrong(f"per(…) takes the name of a column or a dotted path, not {self.field!r}.")

    def __str__(self) -> str:
        field = "" if self.field is None else f"{json.dumps(self.field, ensure_ascii=False)}, "
        return f"{self.rule}({field}{self.n})"


def _wrong(message: str, hint: str | None = None) -> ConfigurationError:
    return ConfigurationError(message, code="bad_capture", path="capture", hint=hint)


def _check_rule(name: str) -> None:
    if name in RULES:
        return
    from xray.plugins import installed

    brought = installed().samplers
    if name not in brought:
        raise _wrong(f"There is no strategy '{name}'.", did_you_mean(name, (*RULES, *MODES, *brought)))


@dataclass(frozen=True, slots=True, repr=False)
class Strategy:
    """A way to choose candidates: one or several parts, of which each adds what it chooses.

    Immutable and hashable. ``str(strategy)`` can be read by :func:`parse_capture`.
    """

    parts: tuple[Part, ...]

    def __or__(self, other: Strategy) -> Strategy:
        if not isinstance(other, Strategy):
            return NotImplemented
        return Strategy(tuple(dict.fromkeys(self.parts + other.parts)))

    def __str__(self) -> str:
        return " | ".join(map(str, self.parts))

    __repr__ = __str__


def top(n: int) -> Strategy:
    """The n candidates with the highest scores; without any score, those with the best (lowest) ranks.

    Candidates that have no such number come after all that have one. Where none has, the order of the stage counts.
    Among equals the earlier one is taken. The same holds for :func:`bottom`.

    Raises:
        ConfigurationError: ``n`` is no whole number from 0 on. The same holds for every strategy.
    """
    return Strategy((Part("top", n),))


def bottom(n: int) -> Strategy:
    """The n candidates with the lowest scores, or the worst ranks; see :func:`top`."""
    return Strategy((Part("bottom", n),))


def random(n: int) -> Strategy:
    """A simple random sample of n candidates, without replacement."""
    return Strategy((Part("random", n),))


def per(field: str, n: int) -> Strategy:
    """Up to n candidates, at random, of each value that a field has.

    Args:
        field: A column (``"source"``), a dotted path that begins with a column (``"data.category"``), or else a path
            into ``data`` (``"category"``). Candidates that lack the field are a group of their own.
        n: How many of each.
    """
    return Strategy((Part("per", n, field),))


def per_label(n: int) -> Strategy:
    """Up to n candidates, at random, of each reason label, so that rare reasons survive.

    Candidates without a label count as one label for each verdict, so that survivors are kept too.
    """
    return Strategy((Part("per_label", n),))


def boundary(n: int) -> Strategy:
    """The n candidates nearest the cutoff: those that another threshold would have decided otherwise.

    Passing are ``selected`` candidates in a stage that selects, else ``passed`` ones; the others with a verdict fail
    (in a stage that selects, all others do). The cutoff is the first of these that there is:

    1. with scores on both sides, the middle between the lowest passing and the highest failing score (where every
       passing score is below every failing one, as for distances: between the highest passing and the lowest failing);
    2. with ranks, half a rank after the last kept one: the last that passes or, without verdicts, the last of all;
    3. with scores on one side only, the lowest passing or the highest failing score.

    Distance is that of the score (1, 3) or the rank (2). A candidate without that number is not chosen; without any
    cutoff none is.
    """
    return Strategy((Part("boundary", n),))


def adaptive(n: int) -> Strategy:
    """A budget of n candidates, more of it where the decisions vary: a stratified sample with optimum allocation.

    Strata are ten bands of equally many candidates in the order of their scores (or ranks), and one more of those
    without; in a stage that has neither, the reason labels. Stratum h of N candidates gets a number n_h of them,
    chosen at random, such that the sum of (N S)² / n_h is the least: Neyman's allocation ("On the Two Different
    Aspects of the Representative Method", Journal of the Royal Statistical Society 97(4), 1934) in whole numbers, by
    Wright's priority values N S / sqrt(n_h (n_h + 1)) ("The Equivalence of Neyman Optimum Allocation for Sampling and
    Equal Proportions for Apportioning the U.S. House of Representatives", The American Statistician 66(4), 2012).

    S² = 1 - Σ p² is the variance of the verdict in a stratum, p being the share of each verdict (the Gini-Simpson
    index). Shares are taken with one imaginary candidate of another verdict added, so that a stratum that looks
    uniform still gets its small part: where all do, one in proportion to the root of its size.
    """
    return Strategy((Part("adaptive", n),))


def strategy(name: str, n: int) -> Strategy:
    """A strategy by its name, a plugin's included: ``strategy("by_brand", 5)`` is ``by_brand(5)``.

    Args:
        name: What a plugin's ``xray_samplers`` hook calls it, or one of X-Ray's own.
        n: How many it keeps.

    Raises:
        ConfigurationError: There is none of that name; ``per`` takes a field too and is no such one.
    """
    return Strategy((Part(name, n),))


# --- tiers and their text -------------------------------------------------------------------------------------------

DEFAULT_STRATEGY = per_label(20) | boundary(20) | top(20) | random(40)
"""What ``"sampled"`` alone means: every reason, both sides of the cutoff, the best, and an unbiased rest."""


@dataclass(frozen=True, slots=True)
class Capture:
    """What is kept of a stage's candidates.

    Args:
        mode: ``full`` keeps all, ``sampled`` what the strategy chooses, ``summary`` none. Metrics are exact in each.
        strategy: What is chosen; ``DEFAULT_STRATEGY`` where ``sampled`` is given none, and None in the other modes.

    Raises:
        ConfigurationError: There is no such mode, or one that takes no strategy was given one.
    """

    mode: Mode
    strategy: Strategy | None = None

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise _wrong(f"There is no capture mode {self.mode!r}.", did_you_mean(str(self.mode), MODES))
        if self.mode == "sampled" and self.strategy is None:
            object.__setattr__(self, "strategy", DEFAULT_STRATEGY)
        if self.mode != "sampled" and self.strategy is not None:
            raise _wrong(f"Capture '{self.mode}' takes no strategy.")

    def __str__(self) -> str:
        return self.mode if self.strategy is None else str(self.strategy)


def parse_capture(value: Capture | Strategy | str) -> Capture:
    """Read what ``capture=`` or an environment variable says.

    Args:
        value: ``"full"``, ``"summary"``, ``"sampled"``, a strategy, or the text of one (``"top(10) | random(5)"``).

    Raises:
        ConfigurationError: It is none of these; the hint has the nearest right word.
    """
    if isinstance(value, Capture):
        return value
    if isinstance(value, Strategy):
        return Capture("sampled", value)
    if not isinstance(value, str):
        raise _wrong(f"capture is {', '.join(MODES)} or a strategy such as top(10) | random(5), not {value!r}.")
    word = value.strip().lower()
    for mode in MODES:
        if word == mode:
            return Capture(mode)
    return Capture("sampled", _parse_strategy(value))


_NAME = re.compile(r"\s*([A-Za-z_][A-Za-z_0-9]*)\s*")
_ARGUMENTS = re.compile(
    r"""\(\s* (?: ( "(?:[^"\\]|\\.)*" | '[^'\\]*' | [^\s,()|"']+ ) \s*,\s* )? ([0-9]{1,10}) \s*\)\s*""",
    re.VERBOSE | re.DOTALL,
)


def _parse_strategy(text: str) -> Strategy:
    parts: list[Part] = []
    place = 0
    while not parts or place < len(text):
        if parts:
            if text[place] != "|":
                raise _wrong(f"In {text!r} a '|' is missing before {text[place:]!r}.")
            place += 1
        name = _NAME.match(text, place)
        if name is None:
            raise _wrong(f"In {text!r} a strategy is missing at character {place + 1}.", "Write for example top(10).")
        _check_rule(name[1])
        arguments = _ARGUMENTS.match(text, name.end())
        if arguments is None:
            example = 'per("source", 5)' if name[1] == "per" else f"{name[1]}(10)"
            raise _wrong(f"What follows '{name[1]}' in {text!r} cannot be read.", f"Write for example {example}.")
        parts.append(Part(name[1], int(arguments[2]), _field(arguments[1])))
        place = arguments.end()
    return Strategy(tuple(dict.fromkeys(parts)))


def _field(text: str | None) -> str | None:
    if text is None or text[0] not in "\"'":
        return text
    if text[0] == "'":
        return text[1:-1]
    try:
        return str(json.loads(text, strict=False))
    except ValueError:
        raise _wrong(f"The field {text} cannot be read.") from None
