"""What every page has: its headers, its frame, no inline script; errors; the files that pages need."""

from __future__ import annotations

import asyncio
import gzip
import json
import re

import pytest
import zstandard

from tests.dashboard.support import FILTER_ID, RANK_ID, RUN_ID, SCORE_ID, browse, events, page, parsed
from xray.exceptions import StoreError
from xray_server.app import create_app
from xray_server.dashboard import choices
from xray_server.dashboard.assets import DIGEST, PLOTLY_URL, asset_url
from xray_server.stores.sqlite import SqliteStore

ADDRESSES = (
    "/", "/?sort=-$failRatio", "/?label=none", f"/runs/{RUN_ID}", f"/runs/{RUN_ID}/flow", f"/runs/{RUN_ID}/suspects",
    f"/runs/{RUN_ID}/candidates/sku-0001", f"/runs/{RUN_ID}/candidates?id=a%2F%2Fb", "/candidates/history?id=sku-0001",
    f"/stages/{FILTER_ID}", f"/stages/{FILTER_ID}?view=candidates", f"/stages/{FILTER_ID}?view=checks",
    f"/stages/{FILTER_ID}?view=values", f"/stages/{FILTER_ID}?view=llm", f"/stages/{FILTER_ID}?view=json",
    f"/stages/{FILTER_ID}/panel", f"/stages/{FILTER_ID}/whatif", f"/stages/{SCORE_ID}/scores",
    f"/stages/{RANK_ID}/ranks", f"/stages/{FILTER_ID}/candidates/0", "/nothing", "/?lable=x",
)  # fmt: skip


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Address → the answer, of every page."""

    async def use(client):
        return {
            address: await client.get(address, headers={"Accept": "text/html"}) for address in ADDRESSES
        }  # fmt: skip

    return browse(tmp_path_factory.mktemp("frame"), use, events())


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_page_allows_no_script_but_files_of_this_service(answers, address):
    """The policy names this service alone; no element has a script, a handler or a style in itself."""
    answer = answers[address]
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "same-origin"
    for element in parsed(answer.text).all():
        if element.tag == "script":
            is_file = element.attributes.get("src", "").startswith("/static/")
            assert is_file or element.attributes.get("type") == "application/json"
        inline = [name for name in element.attributes if name.startswith("on") or name == "style"]
        assert inline == [], f"<{element.tag}> has {inline}"
        for name in ("src", "href", "action"):
            assert re.match(r"[/#]", element.attributes.get(name, "/")), f"<{element.tag} {name}> leads elsewhere"


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_page_has_landmarks_and_names(answers, address):
    """A language, a title, one main part that the first link skips to, names for all controls, ids that are its own."""
    root = parsed(answers[address].text)
    assert root.one("html").attributes["lang"] == "en"
    assert root.one("head").one("title").text.endswith("X-Ray")
    assert root.one("a", class_="skip").attributes["href"] == "#" + root.one("main").attributes["id"]
    ids = [element.attributes["id"] for element in root.all() if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    named = root.all("label")
    for control in (*root.all("input"), *root.all("select")):
        if control.attributes.get("type") == "hidden":
            continue
        has_label = any(control in label.all() and label.text for label in named)
        assert has_label or control.attributes.get("aria-label"), control.attributes
    for head in root.all("th"):
        assert head.attributes.get("scope") in ("col", "row")


def test_sort_heads_say_how_a_table_is_sorted_and_lead_the_other_way(tmp_path):
    """aria-sort is on the column that sorts; its link turns the order round; another one keeps the filters."""

    async def use(client):
        root = await page(client, "/?label=product_search&sort=-duration_ms&cursor=")
        heads = {head.text.rstrip("▲▼"): head for head in root.all("th")}
        assert heads["Took"].attributes["aria-sort"] == "descending"
        assert [name for name, head in heads.items() if "aria-sort" in head.attributes] == ["Took"]
        assert heads["Took"].one("a").attributes["href"] == "/?label=product_search&sort=duration_ms"
        assert heads["Started, UTC"].one("a").attributes["href"] == "/?label=product_search&sort=-started_at"

    browse(tmp_path, use, events())


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/runs/none", 404, ("There is no run 'none'.", "/?key")),
        ("/stages/none", 404, ("There is no stage 'none'.",)),
        ("/qurey", 404, ("There is nothing at /qurey.", "Did you mean '/query'?")),
        ("/zzzzzzz", 404, ("There is nothing at /zzzzzzz.",)),
        ("/?limit=many", 422, ("valid integer",)),
        ("/?statu=x", 422, ("There is no parameter 'statu'.", "status")),
        ("/?sort=-$failRatoi", 422, ("Did you mean '$failRatio'?",)),
        ("/?since=yesterday", 422, ("no moment", "7d")),
        (f"/stages/{FILTER_ID}?view=candidats", 422, ("Did you mean 'candidates'?",)),
        (f"/stages/{FILTER_ID}?view=candidates&verdict=faild", 422, ("Did you mean 'failed'?",)),
        (f"/stages/{FILTER_ID}?view=candidates&field=dta.price&op=gt&value=1", 422, ("Did you mean 'data'?",)),
        (f"/stages/{FILTER_ID}/candidates/100000", 404, ("no candidate at place 100000",)),
        (f"/runs/{RUN_ID}?cursor=nonsense", 422, ("cursor",)),
    ],
)  # fmt: skip
def test_errors_on_pages_are_pages_with_the_nearest_word(tmp_path, path, status, words):
    """They keep the frame, and say what the API would say."""

    async def use(client):
        root = await page(client, path, status)
        assert root.one("nav", **{"aria-label": "Pages"})
        said = root.one("main").text
        for word in words:
            assert word in said

    browse(tmp_path, use, events())


@pytest.mark.parametrize("accept", ["text/html", "*/*", "application/json"])
@pytest.mark.parametrize(
    ("path", "status"), [("/v1/runs/none", 404), ("/v1/nothing", 404), ("/v1/runs?limit=many", 422)]
)
def test_errors_of_the_api_stay_json(tmp_path, accept, path, status):
    """Whoever asks: the one shape of errors."""

    async def use(client):
        answer = await client.get(path, headers={"Accept": accept})
        assert answer.status_code == status
        assert set(answer.json()["error"]) == {"code", "message", "path", "hint"}

    browse(tmp_path, use, events())


def test_an_unknown_path_is_a_page_for_people_only(tmp_path):
    """A program that asks for something that is not there gets JSON."""

    async def use(client):
        assert (await client.get("/nothing")).json()["error"]["code"] == "not_found"

    browse(tmp_path, use)


class BreaksOnReading(SqliteStore):
    """Nothing can be read of it."""

    async def scan(self, project, scan):
        raise StoreError("The disk is on fire <b>.")


def test_a_store_that_cannot_be_read_is_a_page_too(tmp_path):
    """503, when to try again, and what went wrong, inert."""
    import asyncio

    import httpx

    async def run():
        app = create_app(store=BreaksOnReading(tmp_path / "xray.sqlite3"))
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://x") as c:
            answer = await c.get("/")
            assert answer.status_code == 503
            assert answer.headers["Retry-After"] == "1"
            assert "The disk is on fire <b>." in parsed(answer.text).one("main").text
            assert (await c.get("/v1/runs")).json()["error"]["code"]

    asyncio.run(run())


# --- files ------------------------------------------------------------------------------------------------------


def test_files_are_kept_for_good_under_their_digest(tmp_path):
    """Under another digest they are asked for again each time; what is not there is a 404."""

    async def use(client):
        answer = await client.get(asset_url("style.css"))
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert answer.headers["Content-Type"].startswith("text/css")
        old = await client.get("/static/0000000000000000/style.css")
        assert old.text == answer.text
        assert old.headers["Cache-Control"] == "no-cache"
        assert (await client.get(f"/static/{DIGEST}/nothing.js")).status_code == 404
        assert (await client.get(f"/static/{DIGEST}/..%2Frouter.py")).status_code == 404

    browse(tmp_path, use)


@pytest.mark.parametrize("encoding", ["gzip", "zstd", ""])
def test_plotly_is_served_from_its_package_compressed(tmp_path, encoding):
    """Whatever a browser takes: the same script, of the version in its address."""

    async def use(client):
        request = client.build_request("GET", PLOTLY_URL, headers={"Accept-Encoding": encoding})
        answer = await client.send(request, stream=True)
        raw = b"".join([part async for part in answer.aiter_raw()])
        assert answer.headers.get("Content-Encoding", "") == encoding
        assert "immutable" in answer.headers["Cache-Control"]
        unpacked = {"gzip": gzip.decompress, "zstd": zstandard.ZstdDecompressor().decompress, "": bytes}[encoding](raw)
        version = re.search(r"plotly-([0-9.]+)\.min", PLOTLY_URL)[1]
        assert f"plotly.js v{version}".encode() in unpacked[:400]
        assert not encoding or len(raw) < len(unpacked) / 2

    browse(tmp_path, use)


def test_every_file_that_a_page_names_is_there(tmp_path):
    """Style, scripts and what these import."""

    async def use(client):
        root = await page(client, "/")
        named = [each.attributes["src"] for each in root.all("script") if "src" in each.attributes]
        named += [each.attributes["href"] for each in root.all("link")]
        assert len(named) >= 4
        while named:
            address = named.pop()
            answer = await client.get(address)
            assert answer.status_code == 200, address
            folder = address.rsplit("/", 1)[0]
            named += [f"{folder}/{name}" for name in re.findall(r'from "\./([\w.]+)"', answer.text)]

    browse(tmp_path, use)


def test_pages_are_no_part_of_the_api_s_description(tmp_path):
    """The OpenAPI document names what is for programs."""

    async def use(client):
        paths = (await client.get("/openapi.json")).json()["paths"]
        assert all(path.startswith(("/v1/", "/health", "/ready", "/metrics")) for path in paths)

    browse(tmp_path, use)


def test_choices_are_found_anew_beside_the_page_that_shows_old_ones(tmp_path, monkeypatch):
    """Finding them takes long in a large store; who looks after that gets the new ones."""
    monkeypatch.setattr(choices, "REMEMBERED_S", 0.0)

    def labels(root):
        return {option.attributes["value"] for option in root.one("datalist", id="labels").all("option")}

    async def use(client):
        assert labels(await page(client, "/")) == {"product_search"}
        later = events(1, id=RUN_ID[:-1] + "f", label="later")[:1]
        await client.post("/v1/ingest", content=json.dumps({"events": later}))
        assert labels(await page(client, "/")) == {"product_search"}
        for _ in range(500):
            if labels(await page(client, "/")) == {"product_search", "later"}:
                return
            await asyncio.sleep(0.01)
        raise AssertionError("the new label never shows up")

    browse(tmp_path, use, events(5))
