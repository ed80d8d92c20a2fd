"""``/v1/system`` over both stores: what is held, taken in, refused and set, without what is secret."""

from __future__ import annotations

import json

import pytest

from tests.server.helpers import candidates, row, run_start, stage
from tests.server.stores_of import store_url, with_service
from xray.exceptions import SchemaError
from xray_server.intake import KEPT_MINUTES, Intake
from xray_server.prepare import IngestResult

__all__ = ["store_url"]  # the fixture


def test_the_service_says_what_it_holds_and_takes_in(store_url):
    async def use(client):
        before = (await client.get("/v1/system")).json()
        events = [run_start(), stage(), candidates(0, [row(n) for n in range(5)]), {"type": "stage", "id": "none"}]
        assert (await client.post("/v1/ingest", json={"events": events})).status_code == 422
        assert (await client.post("/v1/ingest", content=b"{", headers={"content-type": "application/json"})).is_error
        assert (await client.post("/v1/ingest", content=b"", headers={"content-type": "text/html"})).is_error
        return before, (await client.get("/v1/system")).json(), (await client.get("/health")).json()

    before, after, health = with_service(store_url, use, keep_candidates="30d", keep_runs="10d")
    assert (before["holds"]["runs"], before["intake"]["events"], before["intake"]["refused_events"]) == (0, 0, {})
    assert (after["holds"]["runs"], after["holds"]["stages"], after["holds"]["candidate_pages"]) == (1, 1, 1)
    assert after["holds"]["size_bytes"] > 0
    intake = after["intake"]
    assert (intake["batches"], intake["events"], intake["events_last_hour"]) == (1, 3, 3)
    assert sum(intake["refused_events"].values()) == 1
    assert sum(intake["refused_batches"].values()) == 2
    assert len(intake["per_minute"]) == KEPT_MINUTES
    assert after["retention"]["text"] == "candidates 30d, runs 10d, any size on disk"
    assert after["retention"]["keep_runs_ms"] == 10 * 86_400_000
    assert set(after["tasks"]) == set(health["tasks"]) == {"rollups", "retention", "sightings"}
    assert (after["version"], after["store"]["kind"]) == (health["version"], health["store"]["kind"])
    is_embedded = store_url.startswith("sqlite")
    assert (after["disk"] is not None) == is_embedded
    settings = {each["name"]: each for each in after["settings"]}
    assert (settings["keep_runs"]["value"], settings["keep_runs"]["is_default"]) == ("10d", False)
    assert (settings["port"]["is_default"], settings["port"]["variable"]) == (True, "XRAY_SERVER_PORT")
    built_in = [each for each in after["plugins"] if each["origin"] == "built-in"]
    assert "filtering" in {name for each in built_in for name in each["stage_types"]}


def test_no_secret_is_shown(databases, tmp_path):
    """Neither the password in a store's URL nor its options, nor the key of a model."""
    scheme, _, rest = databases.url(tmp_path).partition("://")
    url = f"{scheme}://{rest}{'&' if '?' in rest else '?'}appName=s3cret"

    async def use(client):
        return (await client.get("/v1/system")).text

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XRAY_LLM_BASE_URL", "http://127.0.0.1:9/v1")
        patch.setenv("XRAY_LLM_MODEL", "tiny")
        patch.setenv("XRAY_LLM_API_KEY", "s3cret")
        text = with_service(url, use)
    assert "s3cret" not in text
    assert json.loads(text)["model"] == "tiny"


def test_intake_counts_by_minute_and_forgets_old_minutes():
    now = 0.0
    intake = Intake(lambda: now)

    def take(events):
        with intake.batch() as note:
            note(IngestResult(accepted=events, errors=[]))

    take(5)
    now = 59.0
    take(2)
    now = 60.0
    take(1)
    assert intake.as_dict()["per_minute"][-2:] == [7, 1]
    now = 60.0 * KEPT_MINUTES
    assert intake.as_dict()["events_last_hour"] == 1
    take(1)
    now *= 2
    assert (intake.as_dict()["events_last_hour"], intake.as_dict()["events"]) == (0, 9)


def test_reasons_are_bounded():
    intake = Intake()
    for number in range(1000):
        with pytest.raises(SchemaError), intake.batch():
            raise SchemaError("no", code=f"code{number}")
    assert sum(intake.refused_batches.values()) == 1000
    assert len(intake.refused_batches) <= 51
