"""Which field lies where, and in which form.

What questions name lies in the open, under names of one or two letters, because each document has them again; the
rest is one value, compressed. ``documents`` beside this file says what each name stands for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from xray_server.documents import PIPELINE_FIELDS, STAGE_FIELDS, Kind

Storage = Literal[
    "own_id", "key", "id", "own_run", "word", "mostly", "as_name", "listed", "time", "plain", "metrics", "rest"
]
"""How a field is kept.

``own_id``: the document's id, in ``_id``. ``key``: a run's id behind its project. ``id``: an id without one.
``own_run``: an id that is left out where it is the document's own ``run_id``, as it mostly is; absence is ``False``.
``word``: the number of a text. ``mostly``: likewise, but what is usual is left out, and absence has a number.
``as_name``: likewise, and the stage's name is what is usual.
``listed``: a number in the list of those that one index serves; absence has a number too, so that each document has one
of each field. ``time``: a date. ``plain``: as it is. ``metrics``: numbers under the numbers of their names. ``rest``:
with others in the one compressed value.
"""

WORDS: Final = ("word", "mostly", "as_name", "listed")
ALWAYS: Final = ("mostly", "as_name", "listed")
"""Of these each document has a word, if only that of absence."""

USUAL: Final = {"status": "success", "completeness": "complete"}
"""What is left out."""

LISTED: Final = "w"
REST: Final = "z"
METRICS: Final = "m"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a field lies.

    Args:
        name: The field's name; of a run's field that a stage has again, with ``pipeline.`` before it.
        path: The name in the collection.
        storage: How it is kept.
        kind: The kind of its values.
    """

    name: str
    path: str
    storage: Storage
    kind: Kind

    @property
    def field(self) -> str:
        """What its words are words of: a run's label and a stage's copy of it are one."""
        return self.name.removeprefix("pipeline.")


def places(kinds: Mapping[str, Kind], where: Mapping[str, tuple[str, Storage]]) -> dict[str, Place]:
    """Where the fields of some kinds lie; what is not said lies in the rest."""
    return {name: Place(name, *where.get(name, (REST, "rest")), kind) for name, kind in kinds.items()}


RUN_PLACES: dict[str, tuple[str, Storage]] = {
    "id": ("_id", "own_id"),
    "key": ("pk", "plain"),
    "label": ("l", "listed"),
    "version": ("y", "word"),
    "environment": ("e", "word"),
    "started_at": ("s", "time"),
    "repository": ("rp", "word"),
    "finished_at": ("f", "time"),
    "duration_ms": ("d", "plain"),
    "status": ("x", "mostly"),
    "tags": ("t", "plain"),
    "stage_count": ("sc", "plain"),
    "completeness": ("q", "mostly"),
    "sample_rate": ("sr", "plain"),
}

STAGE_PLACES: dict[str, tuple[str, Storage]] = {
    "id": ("_id", "own_id"),
    "run_id": ("r", "key"),
    "parent_id": ("u", "id"),
    "order": ("o", "plain"),
    "path": ("h", "as_name"),
    "name": (LISTED, "listed"),
    "type": (LISTED, "listed"),
    "started_at": ("s", "time"),
    "duration_ms": ("d", "plain"),
    "status": ("x", "mostly"),
    "reasoning": ("g", "plain"),
    "metrics": (METRICS, "metrics"),
    "metrics_over": ("c", "plain"),
    "candidates_removed_at": ("gone", "time"),
    "pipeline.id": ("pi", "own_run"),
    "pipeline.key": ("pk", "plain"),
    "pipeline.label": (LISTED, "listed"),
    "pipeline.version": ("y", "word"),
    "pipeline.environment": ("e", "word"),
    "pipeline.started_at": ("a", "time"),
}

STAGE_KINDS: dict[str, Kind] = {
    **{name: kind for name, kind in STAGE_FIELDS.items() if name != "pipeline"},
    **{f"pipeline.{name}": kind for name, kind in PIPELINE_FIELDS.items()},
}
