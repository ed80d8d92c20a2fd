"""What the API takes in its addresses: parameters, checked, with the nearest right one for a wrong one."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from xray.exceptions import SchemaError, did_you_mean
from xray.ids import now_ms
from xray.schema import STATUSES
from xray.stage_types.base import VERDICTS
from xray_server.api.answers import iso_time
from xray_server.api.moments import is_stretch, moment_ms, pinned, unpinned
from xray_server.query.parser import DEFAULT_LIMIT, MAX_LIMIT


class Parameters(BaseModel):
    """Query parameters; one that is not known is refused, with the nearest one that is."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, values: Any) -> Any:
        for name in values:
            if name not in cls.model_fields:
                raise SchemaError(
                    f"There is no parameter '{name:.100}'.",
                    code="unknown_parameter",
                    path=name,
                    hint=did_you_mean(name, cls.model_fields)
                    or (f"There are {', '.join(cls.model_fields)}." if cls.model_fields else None),
                )
        return values


class PageParameters(Parameters):
    """What every list takes."""

    limit: int = Field(DEFAULT_LIMIT, ge=1, le=MAX_LIMIT, description="How many rows at most.")
    cursor: str | None = Field(None, description="Where the page before stopped.")


class TimeParameters(PageParameters):
    """What lists by time take."""

    since: str | None = Field(None, description="Started at or after: 7d, 12h, or ISO 8601 with a zone.")
    until: str | None = Field(None, description="Started before: 1d, 6h, or ISO 8601 with a zone.")
    _asked_ms: int | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _read_moments(self) -> Self:
        asked_ms, self.cursor = unpinned(self.cursor)
        for name in ("since", "until"):
            value = getattr(self, name)
            if value is not None:
                if is_stretch(value):
                    self._asked_ms = asked_ms = now_ms() if asked_ms is None else asked_ms
                setattr(self, name, iso_time(moment_ms(value, name, asked_ms)))
        return self

    def paged(self, answer: dict[str, Any]) -> dict[str, Any]:
        """An answer whose cursor goes on within the same stretch of time.

        Args:
            answer: What the list gave for these parameters.
        """
        return answer if self._asked_ms is None else answer | {"cursor": pinned(answer["cursor"], self._asked_ms)}


class Suffixed(TimeParameters):
    """Parameters beside which any field or metric may be named, with an operator: ``fail_ratio__gt=0.9``."""

    model_config = ConfigDict(extra="allow")

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, values: Any) -> Any:
        return values  # what they name is looked up where the metrics are known

    def suffixed(self) -> dict[str, str]:
        """The parameters that are not of the list itself."""
        return {
            name: value[-1] if isinstance(value, list) and value else str(value)
            for name, value in (self.model_extra or {}).items()
        }


class RunParameters(Suffixed):
    """By what runs can be listed."""

    label: str | None = Field(None, description="The pipeline's label.")
    key: str | None = Field(None, description="The user's own id of the run.")
    status: str | None = Field(None, description="How the run stands.", json_schema_extra={"enum": list(STATUSES)})
    version: str | None = None
    environment: str | None = None


class StageParameters(Suffixed):
    """By what stages can be listed."""

    run_id: str | None = Field(None, description="The run's id.")
    type: str | None = Field(None, description="The stage type.")
    name: str | None = Field(None, description="The stage's name.")
    label: str | None = Field(None, description="The pipeline's label.")


class CandidateParameters(PageParameters):
    """By what the candidates of a stage can be listed."""

    verdict: str | None = Field(None, description="What was decided.", json_schema_extra={"enum": list(VERDICTS)})
    reason_label: str | None = None
