"""Which parameter of a decorated callable holds what: worked out once, used at each call."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Annotated, Any, NamedTuple, get_args, get_origin

from xray.capture.frames import column_values, is_column, is_frame
from xray.capture.plain import marker, name_of
from xray.markers import Candidates, RawInput


class Arguments(NamedTuple):
    """The arguments of one call, sorted out.

    ``candidates`` is the list that comes in, or None; ``candidates_from`` the parameter that it came from;
    ``others`` the other arguments by recorded name; ``markers`` what was left out of them.
    """

    candidates: Sequence[Any] | None
    candidates_from: str | None
    others: dict[str, Any]
    markers: list[dict[str, Any]]


class Parameters:
    """The parameters of a callable.

    Args:
        function: The callable, undecorated.
        takes_candidates: Whether, with nothing marked, the first list among the arguments is the candidates.
        named: Names of arguments that the decorator's options name: they are never the candidates, and recorded whole.
    """

    def __init__(self, function: Callable[..., Any], *, takes_candidates: bool, named: Collection[str] = ()) -> None:
        self._named = frozenset(named)
        self._function = function
        self._takes_candidates = takes_candidates
        parameters = list(inspect.signature(function).parameters.values())
        self.names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        self._rest = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), None)
        self._defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
        self.owner = self.names[0] if self.names and self.names[0] in ("self", "cls") else None
        """``self`` or ``cls``, where the callable is a method that has one."""
        self._marks: dict[str, Candidates | RawInput] | None = None
        self._source: str | None = None
        self._source_name: str | None = None
        self._raw: dict[str, str] = {}
        self._takes_more = len(parameters) > len(self.names) or bool(self._defaults)
        self.alone: int | None = None
        """How many positional arguments a call has that gives nothing but candidates; None where none can be told so.

        Known from the first call on, which reads the markers.
        """
        self.alone_name: str | None = None
        """The name under which these candidates are recorded."""

    @property
    def marks(self) -> Mapping[str, Candidates | RawInput]:
        """Parameter → its marker. Read at the first call, when forward references can be resolved."""
        if self._marks is None:
            self._marks = _read_marks(self._function)
        return self._marks

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a call by parameter name, defaults included."""
        bound = dict(zip(self.names, args, strict=False))
        if self._rest is not None and len(args) > len(self.names):
            bound[self._rest] = args[len(self.names) :]
        if kwargs:
            bound.update(kwargs)
        if self._defaults:
            for name, value in self._defaults.items():
                bound.setdefault(name, value)
        return bound

    def sort_out(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], large_value_items: int) -> Arguments:
        """Tell the candidates from the other arguments of a call.

        Args:
            args: The positional arguments, with the instance or class where there is one.
            kwargs: The keyword arguments.
            large_value_items: Unmarked arguments with more items than this leave a marker.
        """
        if self._marks is None:
            self._prepare()
        bound = self.bind(args, kwargs)
        if self.owner is not None:
            bound.pop(self.owner, None)
        candidates: Sequence[Any] | None = None
        source, shown = self._source, self._source_name
        if source is not None:
            candidates = _as_sequence(bound.pop(source, None))
        elif self._takes_candidates:
            for name, value in bound.items():
                if name in self._named or name in self._raw:
                    continue
                if issubclass(type(value), (list, tuple)) or (type(value) not in _SIMPLE and is_frame(value)):
                    source = shown = name
                    candidates = value
                    break
            if source is not None:
                del bound[source]
        if not bound:
            return Arguments(candidates, shown if candidates is not None else None, {}, [])
        others: dict[str, Any] = {}
        markers: list[dict[str, Any]] = []
        raw = self._raw
        for name, value in bound.items():
            if name in self._named:
                others[name] = value
            elif raw:
                if name in raw:
                    others[raw[name]] = value
            elif type(value) in _SIMPLE:
                others[name] = value
            else:
                others[name] = condensed(value, large_value_items, f"input.{name}", markers)
        return Arguments(candidates, shown if candidates is not None else None, others, markers)

    def _prepare(self) -> None:
        marks = self.marks
        for name, mark in marks.items():
            if isinstance(mark, Candidates) and self._source is None:
                self._source, self._source_name = name, mark.name or name
        self._raw = {name: mark.name or name for name, mark in marks.items() if isinstance(mark, RawInput)}
        given = [name for name in self.names if name != self.owner]
        if len(given) == 1 and not self._takes_more and not self._raw:
            (only,) = given
            if only in self._named:
                return
            if self._source == only or (self._source is None and self._takes_candidates):
                self.alone, self.alone_name = len(self.names), self._source_name or only


_SIMPLE = frozenset({str, int, float, bool, bytes, type(None)})


def condensed(value: Any, large_value_items: int, path: str, markers: list[dict[str, Any]]) -> Any:
    """The value, or a marker in its place where it is a collection of more items than the limit."""
    try:
        if isinstance(value, (str, bytes)) or not hasattr(value, "__len__"):
            return value
        size = len(value)
    except Exception:  # whatever it is, the snapshot takes it or names it
        return value
    if size <= large_value_items:
        return value
    markers.append({"path": path, "kind": "items", "size": size})
    return marker(f"{name_of(value)} of {size} items")


def _may_be_candidates(value: Any) -> bool:
    # By type(): what an object says of its class may be anything, and raise.
    return issubclass(type(value), (list, tuple)) or is_frame(value)


def _as_sequence(value: Any) -> Any:
    if _may_be_candidates(value):
        return value
    if is_frame(value):
        frame: Sequence[Any] = value  # it has a length and rows; xray.capture.live reads them
        return frame
    if is_column(value):
        return column_values(value)
    if isinstance(value, (AbstractSet, Sequence)) and not isinstance(value, (str, bytes)):
        return list(value)
    if isinstance(value, Mapping):
        return list(value.values())
    return None


def _read_marks(function: Callable[..., Any]) -> dict[str, Candidates | RawInput]:
    marks: dict[str, Candidates | RawInput] = {}
    for name, annotation in getattr(function, "__annotations__", {}).items():
        resolved = _resolve(annotation, function) if isinstance(annotation, str) else annotation
        if get_origin(resolved) is Annotated:
            for extra in get_args(resolved)[1:]:
                if isinstance(extra, (Candidates, RawInput)):
                    marks[name] = extra
                elif extra is Candidates or extra is RawInput:
                    marks[name] = extra()
    return marks


def _resolve(annotation: str, function: Callable[..., Any]) -> Any:
    if "Candidates" not in annotation and "RawInput" not in annotation and "Annotated" not in annotation:
        return None
    names = _Lenient(getattr(function, "__globals__", {}))
    try:
        # The text is the user's own annotation, evaluated where typing.get_type_hints would evaluate it; names that
        # exist only for type checkers stand for Any instead of making all of the annotation unreadable.
        return eval(annotation, {"__builtins__": {}}, names)
    except Exception:
        return None


class _Lenient(dict[str, Any]):
    def __init__(self, names: Mapping[str, Any]) -> None:
        super().__init__(vars(typing) | {"Candidates": Candidates, "RawInput": RawInput} | dict(names))

    def __missing__(self, name: str) -> Any:
        import builtins

        return getattr(builtins, name, Any)
