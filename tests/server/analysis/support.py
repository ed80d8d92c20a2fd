"""Runs as the analyses' tests build them: raw candidates, of which the service is sent all, a sample, or none."""

from __future__ import annotations

from dataclasses import dataclass, field

from xray.plugins import installed
from xray.stage_types.base import Columns

TIERS = ("full", "sampled", "summary")


def uuid(number):
    return f"01890000-0000-7000-8000-{number:012d}"


@dataclass
class Raw:
    """One stage with all its candidates, whatever is stored of them."""

    name: str
    type: str
    rows: list = field(default_factory=list)
    fields: dict = field(default_factory=dict)
    tier: str = "full"
    kept: tuple = ()
    """At tier ``sampled``: the places of the rows that are kept."""

    @property
    def stored(self):
        if self.tier == "full":
            return self.rows
        return [self.rows[place] for place in self.kept] if self.tier == "sampled" else []


def run_events(number, stages, label="shop", **run_fields):
    """The events of a run; at the tiers below full with the metrics over all candidates, as the SDK sends them."""
    run = {"id": uuid(number), "label": label, "key": f"r{number}", "started_at": "2026-11-01T00:00:00Z"}
    run |= {name: run_fields.pop(name) for name in ("version", "started_at") if name in run_fields}
    events = [{"type": "run.start", "run": run} | run_fields]
    for order, stage in enumerate(stages):
        event = {
            "type": "stage", "id": uuid(number * 1000 + order + 1), "run": run, "name": stage.name, "path": stage.name,
            "stage_type": stage.type, "order": order, "duration_ms": 2.0, "status": "success",
            "candidates": [{"id": row["candidate_id"], **{k: v for k, v in row.items() if k != "candidate_id"}}
                           for row in stage.stored],
            "capture": {"mode": stage.tier, "seen": len(stage.rows), "kept": len(stage.stored)},
        }  # fmt: skip
        if stage.tier != "full":
            event["metrics"] = installed().stage_type(stage.type).measure(Columns.from_rows(stage.rows))
        events.append(event | stage.fields)
    events.append({"type": "run.end", "run": run, "status": "success", "duration_ms": 10.0})
    return events


def row(candidate_id, **values):
    return {"candidate_id": candidate_id} | {name: value for name, value in values.items() if value is not None}


async def sent(client, *runs):
    for events in runs:
        response = await client.post("/v1/ingest", json={"events": events})
        assert response.status_code == 200, response.text


async def got(client, path, **parameters):
    response = await client.get(path, params=parameters)
    assert response.status_code == 200, response.text
    return response.json()
