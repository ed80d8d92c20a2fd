"""What a stage's decorator was given, worked out once for its calls."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from xray.capture.accessors import Accessor
from xray.capture.parameters import Parameters
from xray.capture.policy import Policy
from xray.plugins import BUILT_IN
from xray.sampling import parse_capture
from xray.stage_types.base import StageType


class StageSpec:
    """What a stage's decorator was given, worked out for the calls.

    Args:
        name: The stage's name.
        stage_type: Its type.
        function: The callable, undecorated; None for a stage that is opened by hand.
        accessors: Field → accessor.
        options: Field → value, for fields that are no accessors.
        capture: What is kept of it, or None where the run's policy holds.
        redact: What is made unreadable beside the run's rules, or None.
        indexed: ``{name, path}`` of each field that questions will look for candidates by.
    """

    def __init__(
        self,
        name: str,
        stage_type: StageType,
        function: Callable[..., Any] | None,
        accessors: Mapping[str, Accessor],
        options: Mapping[str, Any],
        capture: Any = None,
        redact: Any = None,
        indexed: Sequence[Mapping[str, str]] = (),
    ) -> None:
        self.name = name
        self.stage_type = stage_type
        self.type_name = stage_type.name
        self.accessors = dict(accessors)
        self.snapshot_accessors = {name: given for name, given in accessors.items() if not callable(given)}
        fields = {field.name: field for field in stage_type.all_fields()}
        self.defaults = {name: field.defaults for name, field in fields.items() if field.defaults}
        self.fields = tuple(name for name, field in fields.items() if field.kind == "accessor")
        self.input_fields = ("id", *(name for name in self.fields if name in stage_type.reads_inputs))
        self.unmeasured = frozenset(stage_type.unmeasured_fields)
        self.options = dict(options)
        self.capture = capture
        self.mode = None if capture is None else parse_capture(capture).mode
        """The tier, or None where the run's policy says it."""
        self.redact = redact
        self.indexed = list(indexed)
        named = [value for value in options.values() if isinstance(value, str)]
        self.parameters = (
            None
            if function is None
            else Parameters(function, takes_candidates=stage_type.takes_candidates, named=named)
        )
        self.plan_cache: dict[type, Any] = {}
        self._policy: tuple[Policy, Policy] | None = None
        self._names: dict[tuple[str, ...], tuple[str, ...]] = {}
        given_id = accessors.get("id")
        self.id_name = given_id if isinstance(given_id, str) and "." not in given_id else None
        self.reads_dicts = (given_id is None or self.id_name is not None) and not any(map(callable, accessors.values()))
        """Whether, of candidates that are dicts, everything can be read from their snapshot."""
        self.plain_names = {
            field: given for field, given in accessors.items() if isinstance(given, str) and "." not in given
        }
        probe: list[Any] = []
        found = stage_type.candidates_in(probe) if type(stage_type).__module__ in BUILT_IN else ()
        self.lists_are_candidates = len(found) == 1 and found[0] is probe
        """Whether a list that is returned is known to be the candidates; else the stage type is asked each time."""

    def names_of(self, fields: tuple[str, ...], live: Collection[str]) -> tuple[str, ...]:
        """The names under which candidates have these fields and their ids, those left out that were read live."""
        known = None if live else self._names.get(fields)
        if known is None:
            wanted: set[str] = set()
            for field in {"id", *fields} - set(live):
                given = self.accessors.get(field)
                tried = self.defaults.get(field, ()) if given is None else (given,)
                wanted |= {name.partition(".")[0] for name in tried if isinstance(name, str)}
            known = tuple(sorted(wanted))
            if not live:
                self._names[fields] = known
        return known

    def policy_under(self, policy: Policy) -> Policy:
        """What is kept of the stage in a run of that policy; worked out once for each."""
        if self.capture is None and self.redact is None:
            return policy
        known = self._policy
        if known is None or known[0] is not policy:
            known = self._policy = (policy, policy.refined(self.capture, self.redact))
        return known[1]
