"""The examples of categorisation, listing optimisation and RAG: untouched results, and what is recorded of them.

What is expected is worked out here from the examples' data by other means, and compared with the service's answers.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from pathlib import Path
from statistics import fmean, median
from typing import Any

import pytest

import xray
from tests.ports import nowhere
from tests.service import start_service

MODULES = ("categorisation", "listing", "rag")

RUN_ALL = """
import asyncio, logging
logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s %(message)s")
from xray_examples import categorisation, listing, rag
print(repr([categorisation.run_all(), listing.run_all(), rag.run_all(), asyncio.run(rag.run_all_async())]))
"""

UNDECORATED = """
def _leave(*arguments, **fields):
    return lambda decorated: decorated

pipeline = filtering_stage = generation_stage = retrieval_stage = scoring_stage = _leave
selection_stage = raw_stage = _leave
Candidates = str

def entrypoint(method):
    return method

class _Block:
    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    async def __aenter__(self):
        return self

    async def __aexit__(self, *error):
        pass

    def __getattr__(self, name):
        return _nothing

    def stage(self, *arguments, **fields):
        return _Block()

def run(*arguments, **fields):
    return _Block()

def _nothing(*arguments, **fields):
    pass

llm = note = reject = _nothing
"""


@pytest.fixture(scope="module")
def undecorated(run_python, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The results with decorators and blocks that do nothing at all, from a stand-in for the package."""
    folder = tmp_path_factory.mktemp("undecorated")
    (folder / "xray.py").write_text(UNDECORATED, encoding="utf-8")
    done = run_python("-c", f"import sys; sys.path.insert(0, {str(folder)!r})\n{RUN_ALL}")
    assert (done.returncode, done.stderr) == (0, "")
    return str(done.stdout)


def test_same_results_switched_off(run_python, undecorated: str) -> None:
    """Switched off, X-Ray neither changes nor says anything."""
    done = run_python("-c", RUN_ALL, XRAY_ENABLED="0")
    assert (done.returncode, done.stdout, done.stderr) == (0, undecorated, "")


def test_same_results_without_a_service(run_python, undecorated: str) -> None:
    """With nothing listening, and in strict mode, the results are the same and one warning is said."""
    with nowhere() as address:
        done = run_python("-c", RUN_ALL, XRAY_SERVER_URL=address, XRAY_STRICT="1")
    assert (done.returncode, done.stdout) == (0, undecorated)
    (line,) = done.stderr.splitlines()
    assert line.startswith("WARNING xray")
    assert address in line


@pytest.mark.parametrize("tier", ["summary", "top(1) | random(1)"])
def test_same_results_at_other_tiers(run_python, undecorated: str, tier: str) -> None:
    """What is kept of the candidates does not reach the results."""
    done = run_python("-c", RUN_ALL, XRAY_CAPTURE=tier, XRAY_SERVER_URL="http://127.0.0.1:9")
    assert (done.returncode, done.stdout) == (0, undecorated)


@pytest.mark.parametrize("module", MODULES)
def test_runs_by_itself(run_python, module: str) -> None:
    """``python -m xray_examples.<module>`` prints something for each input."""
    done = run_python("-m", f"xray_examples.{module}", XRAY_ENABLED="0")
    assert (done.returncode, done.stderr) == (0, "")
    starts = [line for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert len(starts) == {"categorisation": 10, "listing": 6, "rag": 5}[module]


# --- what the service has of them -----------------------------------------------------------------------------------

Stages = dict[tuple[str, str, str], dict[str, Any]]
"""(version, run's key, stage's name) → the stage, with its ``rows`` by candidate id."""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Stages]:
    """Pipeline → what was recorded of its stages."""
    from xray_examples import categorisation, listing, rag

    found: dict[str, Stages] = {}
    with start_service(tmp_path_factory.mktemp("service")) as service, service.client() as client:
        xray.configure(server_url=service.url)
        categorisation.run_all()
        listing.run_all()
        rag.run_all()
        asyncio.run(rag.run_all_async())
        assert xray.flush(timeout_s=30), xray.stats()
        assert xray.stats().failures == {}
        for stage in client.query({"limit": 1000})["rows"]:
            candidates: list[dict[str, Any]] = []
            if stage["type"] != "raw":
                question = {"stage": {"id": stage["id"]}, "return": "candidates", "limit": 1000}
                candidates = client.query(question)["rows"]
            run = stage["pipeline"]
            stage["rows"] = {row["candidate_id"]: row for row in candidates}
            assert len(stage["rows"]) == len(candidates)
            stages = found.setdefault(run["label"], {})
            assert stages.setdefault((run["version"], run["key"], stage["name"]), stage) is stage
    return found


def metrics_of(stage: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: stage["metrics"].get(name) for name in names}


def verdicts_of(stage: dict[str, Any]) -> dict[str, str | None]:
    return {candidate_id: row.get("verdict") for candidate_id, row in stage["rows"].items()}


def labels_of(stage: dict[str, Any]) -> dict[str, str]:
    return {key: row["reason_label"] for key, row in stage["rows"].items() if row.get("verdict") == "failed"}


def only(stages: Stages, name: str) -> dict[str, dict[str, Any]]:
    return {key: stage for (_, key, stage_name), stage in stages.items() if stage_name == name}


def test_categorisation(recorded: dict[str, Stages]) -> None:
    """Sources, scores, checks, labels, verdicts and metrics of every product are those of the tables."""
    from xray_examples.categorisation import CATEGORIES, PRODUCTS, run_all

    stages = recorded["product_categorisation"]
    assert len(stages) == 4 * len(PRODUCTS)
    results = run_all()
    for product in PRODUCTS:
        title, description = (set(re.findall(r"[\w-]+", text.lower())) for text in (product.title, product.description))
        sources, scores, failing = {}, {}, {}
        for category in CATEGORIES:
            in_title, in_description = title.intersection(category.words), description.intersection(category.words)
            if not in_title | in_description:
                continue
            sources[category.id] = "title" if in_title else "description"
            if product.price < category.lowest:
                price = round(product.price / category.lowest, 4)
            elif product.price > category.highest:
                price = round(category.highest / product.price, 4)
            else:
                price = 1.0
            each = {
                "title": (0, 0.5, 1)[min(len(in_title), 2)],
                "description": (0, 0.5, 1)[min(len(in_description), 2)],
                "price": price,
            }
            total = round(0.5 * each["title"] + 0.3 * each["description"] + 0.2 * each["price"], 4)
            scores[category.id] = (total, each)
            failing[category.id] = [
                *["not_in_title"] * (not in_title), *["price_unlike"] * (price < 0.5), *["low_score"] * (total < 0.6),
            ]  # fmt: skip
        found, match, confident, choose = (
            only(stages, name)[product.id] for name in ("candidate_categories", "match", "confident", "choose")
        )
        assert {key: row["source"] for key, row in found["rows"].items()} == sources
        assert metrics_of(found, "returned", "sources") == {
            "returned": len(sources),
            "sources": Counter(sources.values()),
        }
        assert {key: (row["score"], row["scores"]) for key, row in match["rows"].items()} == scores
        means = {name: pytest.approx(fmean(each[name] for _, each in scores.values())) for name in each}
        assert match["metrics"]["scores_mean"] == means
        middles = {name: pytest.approx(median(each[name] for _, each in scores.values())) for name in each}
        assert match["metrics"]["scores_p50"] == middles
        assert match["metrics"]["score"]["max"] == max(total for total, _ in scores.values())
        assert labels_of(confident) == {key: names[0] for key, names in failing.items() if names}
        passed = [key for key, names in failing.items() if not names]
        assert {key for key, verdict in verdicts_of(confident).items() if verdict == "passed"} == set(passed)
        checked = {
            key: [name for name, check in row["checks"].items() if not check["passed"]]
            for key, row in confident["rows"].items()
        }
        assert checked == failing
        fails = Counter(name for names in failing.values() for name in names)
        assert confident["metrics"]["checks_failed"] == {
            name: fails[name] for name in ("not_in_title", "price_unlike", "low_score")
        }
        assert metrics_of(confident, "passed", "failed", "fail_ratio", "label_counts", "unknown_labels") == {
            "passed": len(passed),
            "failed": len(failing) - len(passed),
            "fail_ratio": (len(failing) - len(passed)) / len(failing),
            "label_counts": Counter(names[0] for names in failing.values() if names),
            "unknown_labels": 0,
        }
        best = max(passed, key=lambda key: scores[key][0], default=None)
        assert results[product.id] == best
        assert [key for key, verdict in verdicts_of(choose).items() if verdict == "selected"] == [best] * bool(passed)
        others = [scores[key][0] for key in passed if key != best]
        margin = pytest.approx(scores[best][0] - max(others)) if best and others else None
        assert metrics_of(choose, "selected", "margin") == {"selected": int(best is not None), "margin": margin}
    assert results["P09"] == "laptop_sleeves"
    assert labels_of(only(stages, "confident")["P09"])["laptops"] == "price_unlike"
    assert results["P10"] is None


def test_listing(recorded: dict[str, Stages]) -> None:
    """The model's cost, each variant's fate and each prediction are those of the texts."""
    from xray_examples.listing import LISTINGS, ask_model, run_all

    stages = recorded["listing_optimisation"]
    results = run_all()
    assert len(stages) == 5 * len(LISTINGS)
    every_label: set[str] = set()
    for listing in LISTINGS:
        known = {"kind": listing.kind, "material": listing.material, "size": listing.size}
        texts = {f"{listing.id}-{n}": text for n, (text, _) in enumerate(ask_model(listing, known), 1)}
        fate: dict[str, str | None] = {}
        for key, text in texts.items():
            proven = f"{listing.title} {listing.material} {listing.size}".lower()
            materials = re.findall(r"\b(?:oak|steel|wool|cotton|glass|leather|linen)\b", text.lower())
            unproven = [word for word in [*materials, *re.findall(r"\d+", text)] if word not in proven]
            if len(text) > 60:
                fate[key] = "too_long"
            elif re.search(r"(?i)\b(best|cheapest|guaranteed|miracle)\b", text):
                fate[key] = "forbidden_word"
            elif unproven:
                fate[key] = "unproven_claim"
            else:
                fate[key] = "unchanged" if text == listing.title else None
        every_label |= {label for label in fate.values() if label}
        kept = [key for key, label in fate.items() if label is None]
        written, guarded, predicted, picked = (
            only(stages, name)[listing.id] for name in ("write_titles", "guardrails", "predict_clicks", "pick")
        )
        assert {key: row["data"]["text"] for key, row in written["rows"].items()} == texts
        assert metrics_of(written, "generated", "mean_length", "duplicates", "empty") == {
            "generated": len(texts),
            "mean_length": pytest.approx(fmean(map(len, texts.values()))),
            "duplicates": 0,
            "empty": 0,
        }
        llm = written["llm"]
        assert llm["output_tokens"] == sum(len(text.split()) for text in texts.values())
        assert llm["cost"] == pytest.approx(llm["input_tokens"] * 2e-6 + llm["output_tokens"] * 8e-6)
        assert llm["model"] == "stand-in"
        assert written["reasoning"].startswith("prompt: Titles for")
        assert labels_of(guarded) == {key: label for key, label in fate.items() if label}
        assert metrics_of(guarded, "passed", "failed", "label_counts", "unlabelled", "unknown_labels") == {
            "passed": len(kept),
            "failed": len(texts) - len(kept),
            "label_counts": Counter(label for label in fate.values() if label),
            "unlabelled": 0,
            "unknown_labels": 0,
        }
        clicks = {}
        for key in kept:
            found = [word for word in listing.searched if re.search(rf"\b{word}\b", texts[key].lower())]
            clicks[key] = pytest.approx(
                len(found) / len(listing.searched) - max(0, len(texts[key]) - 40) / 100, abs=1e-4
            )
        assert {key: row["score"] for key, row in predicted["rows"].items()} == clicks
        scores = {key: row["score"] for key, row in predicted["rows"].items()}
        best = max(scores, key=lambda key: scores[key], default=None)
        assert [key for key, verdict in verdicts_of(picked).items() if verdict == "selected"] == [best] * bool(kept)
        assert results[listing.id] == (texts[best] if best else listing.title)
    assert every_label == {"too_long", "forbidden_word", "unproven_claim", "unchanged"}
    assert [key for key, stage in only(stages, "guardrails").items() if stage["metrics"]["fail_ratio"] == 1] == ["L5"]


def test_rag(recorded: dict[str, Stages]) -> None:
    """What is retrieved, its order, what fits and what is quoted are those of the pages."""
    from xray_examples.rag import BUDGET, COMMON, DOCS, FETCHED, QUESTIONS, run_all, sections

    def bag(text: str) -> list[str]:
        return [word for word in re.split(r"[^a-z_]+", text.lower()) if word and word not in COMMON]

    texts = {section.id: section for section in sections()}
    on_disk = {page.relative_to(DOCS).with_suffix("").as_posix() for page in Path(DOCS).rglob("*.md")}
    assert {section.page for section in texts.values()} <= on_disk
    bags = {key: bag(f"{section.heading} {section.text}") for key, section in texts.items()}
    stages, results = recorded["docs_rag"], run_all()
    assert len(stages) == 8 * len(QUESTIONS)
    moved = 0.0
    for question in QUESTIONS:
        asked = set(bag(question))
        weight = {word: sum(word in words for words in bags.values()) for word in asked}
        scores = {
            key: sum(words.count(word) / weight[word] for word in asked & set(words))
            for key, words in bags.items()
            if asked & set(words)
        }
        retrieve, rerank, fit, quote = (
            stages["1.0", question, name] for name in ("retrieve", "rerank", "fit_budget", "answer")
        )
        shown = {key: row["score"] for key, row in retrieve["rows"].items()}
        assert shown == {key: pytest.approx(scores[key], abs=1e-5) for key in shown}
        assert len(shown) == min(FETCHED, len(scores))
        assert metrics_of(retrieve, "returned", "requested", "duplicates", "sources") == {
            "returned": len(shown),
            "requested": FETCHED,
            "duplicates": 0,
            "sources": Counter(texts[key].page for key in shown),
        }
        before = {key: rank for rank, key in enumerate(shown, 1)}
        after = {key: row["rank"] for key, row in rerank["rows"].items()}
        assert {key: row["rank_before"] for key, row in rerank["rows"].items()} == before
        named = {key: len(asked & set(bag(texts[key].heading))) for key in shown}
        expected = sorted(shown, key=lambda key: (-(named[key] + shown[key] / 100), key))
        assert sorted(after, key=lambda key: after[key]) == expected
        displacement = fmean(abs(before[key] - after[key]) for key in shown)
        assert rerank["metrics"]["mean_displacement"] == pytest.approx(displacement)
        moved = max(moved, displacement)
        left, labels, kept = BUDGET, {}, []
        for key in expected:
            size = len(texts[key].text.split())
            if len(asked & set(bags[key])) < len(asked) / 2:
                labels[key] = "off_topic"
            elif size > left:
                labels[key] = "over_budget"
            else:
                left -= size
                kept.append(key)
        for judged in (fit, stages["1.0-async", question, "fit_budget"])[: 1 + (len(shown) < FETCHED)]:
            assert labels_of(judged) == labels
            assert [key for key, verdict in verdicts_of(judged).items() if verdict == "passed"] == kept
            assert metrics_of(judged, "passed", "failed", "label_counts", "unlabelled") == {
                "passed": len(kept),
                "failed": len(labels),
                "label_counts": Counter(labels.values()),
                "unlabelled": 0,
            }
        assert len(results[question]) == len(kept) == quote["metrics"]["generated"]
        assert all(texts[key].text.startswith(said) for key, said in zip(kept, results[question], strict=True))
        assert quote["llm"]["input_tokens"] == BUDGET - left
        by_heading = stages["1.0-async", question, "by_heading"]
        assert {key for key in bags if asked & set(bag(texts[key].heading))} >= set(by_heading["rows"])
    assert moved > 0
    assert results[QUESTIONS[-1]] == []


def test_a_question_over_all_of_them(recorded: dict[str, Stages]) -> None:
    """Every filter of the three pipelines has a fail ratio of its counts."""
    filters = [stage for stages in recorded.values() for stage in stages.values() if stage["type"] == "filtering"]
    assert len(filters) == 10 + 6 + 2 * 5
    for stage in filters:
        counts = Counter(verdicts_of(stage).values())
        judged = counts["passed"] + counts["failed"]
        assert stage["metrics"].get("fail_ratio") == (counts["failed"] / judged if judged else None)
