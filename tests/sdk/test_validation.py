"""Names given to a decorator are checked, where it is made, against the type of the candidates."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Optional, TypedDict

import attrs
import pydantic
import pytest

import xray
from xray.exceptions import DecoratorError

if TYPE_CHECKING:
    from nowhere import Unknown  # type: ignore[import-not-found] # noqa: F401


@dataclasses.dataclass
class Inner:
    ok: bool


@dataclasses.dataclass
class Judged:
    id: str
    passed: bool
    inner: Inner | None = None

    @property
    def verdict(self) -> bool:
        return self.passed


class Typed(TypedDict):
    id: str
    passed: bool


class Named(NamedTuple):
    id: str
    passed: bool


@attrs.define
class Attrs:
    id: str
    passed: bool


class Model(pydantic.BaseModel):
    id: str
    passed: bool


class Free:
    """Its attributes are made in its methods: nothing is certain about them."""


KINDS: tuple[Any, ...] = (Judged, Typed, Named, Attrs, Model)


@pytest.fixture(autouse=True)
def _strict():
    xray.configure(strict=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("by_annotation", [True, False])
def test_a_wrong_name_is_refused_and_the_nearest_is_named(kind: Any, by_annotation: bool):
    """From the return annotation and from ``of=``, for each kind of class."""

    def judge(pool: list[Any]) -> Any:
        return pool

    if by_annotation:
        judge.__annotations__["return"] = list[kind]
    of = {} if by_annotation else {"of": kind}
    with pytest.raises(DecoratorError, match=f"{kind.__name__} has no field 'pased'") as caught:
        xray.filtering_stage(passed="pased", **of)(judge)
    assert "did you mean 'passed'" in str(caught.value).lower()
    xray.filtering_stage(id="id", passed="passed", **of)(judge)


def _shapes() -> dict[str, Any]:
    return {
        "list": list[Judged],
        "sequence": Sequence[Judged],
        "optional": Optional[list[Judged]],  # noqa: UP045 - the old spelling is what is tested
        "union with none": list[Judged] | None,
        "list of optional": list[Judged | None],
        "pair": tuple[list[Judged], list[Judged]],
        "homogeneous tuple": tuple[Judged, ...],
        "iterator": Iterator[Judged],
        "async iterator": AsyncIterator[Judged],
        "text": "list[Judged]",
    }


@pytest.mark.parametrize("shape", _shapes())
def test_the_candidates_type_is_found_in_every_shape(shape: str):
    """Lists, pairs, unions with None, generators and annotations that are texts."""

    def judge(pool: list[Any]) -> Any:
        return pool

    judge.__annotations__["return"] = _shapes()[shape]
    with pytest.raises(DecoratorError, match="pased"):
        xray.filtering_stage(passed="pased")(judge)


@pytest.mark.parametrize(
    "annotation",
    [
        "list[Unknown]", "list[", list[dict[str, Any]], list[Any], list[Free], list, Any, None, int, dict[str, float],
        list[Judged] | list[Inner], list[Judged | Inner], tuple[str, float], list[tuple[Judged, float]], list[bool],
    ],
)  # fmt: skip
def test_what_is_not_certain_is_passed_over(annotation: Any):
    """Names that exist only for type checkers, free-form classes, ambiguous unions, rows and masks."""

    def judge(pool: list[Any]) -> Any:
        return pool

    judge.__annotations__["return"] = annotation
    decorated = xray.filtering_stage(passed="pased")(judge)
    assert decorated([]) == []


def test_a_field_that_there_is_not_is_said_and_the_function_runs_untouched(caplog: pytest.LogCaptureFixture):
    """A keyword that no field has is a mistake like any other: refused when strict, else one warning."""

    def judge(pool: list[Any]) -> list[Any]:
        return pool

    with pytest.raises(DecoratorError, match=r"has no field 'pased'") as caught:
        xray.filtering_stage("judge", pased="ok")(judge)  # type: ignore[call-overload]
    assert "did you mean 'passed'" in str(caught.value).lower()
    xray.configure(strict=False)
    with caplog.at_level(logging.WARNING, "xray"):
        assert xray.filtering_stage("judge", pased="ok")(judge) is judge  # type: ignore[call-overload]
    assert len(caplog.records) == 1


def test_paths_properties_and_callables():
    """A path is followed as far as it is typed; a property is a name; a callable is not looked into."""

    def judge(pool: list[Any]) -> list[Judged]:
        return pool

    xray.filtering_stage(passed="verdict")(judge)
    xray.filtering_stage(passed="inner.ok")(judge)
    xray.filtering_stage(passed=lambda judged: judged.nothing)(judge)
    with pytest.raises(DecoratorError, match="Inner has no field 'okay'"):
        xray.filtering_stage(passed="inner.okay")(judge)


def test_a_forward_reference_to_a_later_class_is_resolved_or_passed_over():
    """A class that is not there yet when the decorator runs is no error."""

    def judge(pool: list[Any]) -> Any:
        return pool

    judge.__annotations__["return"] = "list[DefinedLater]"
    xray.filtering_stage(passed="pased")(judge)


def test_without_strict_mode_it_warns_once_and_the_function_runs_untouched(caplog: pytest.LogCaptureFixture):
    """One warning at decoration; the very function comes back."""
    xray.configure(strict=False)

    def judge(pool: list[Any]) -> list[Judged]:
        return pool

    with caplog.at_level(logging.WARNING, "xray"):
        decorated = xray.filtering_stage("judge", passed="pased")(judge)
        assert decorated([1]) == [1]
        assert decorated([2]) == [2]
    assert decorated is judge
    (warning,) = caplog.records
    assert "Judged has no field 'pased'" in warning.getMessage()
