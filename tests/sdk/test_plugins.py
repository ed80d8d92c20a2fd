"""Plugins: loading, what they bring, and what becomes of those that raise, are slow, lie or clash."""

from __future__ import annotations

import importlib
import inspect
import logging
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import xray
from tests.docs.test_snippets import blocks_of
from xray import guard, guarded_types, hookspecs, plugins
from xray.capture.redact import FAILED, REDACTED, Redactor
from xray.exceptions import ConfigurationError, PluginError
from xray.guard import Guard, OverrunError, SwitchedOffError
from xray.metrics import RESERVED_NAMES, Metric
from xray.named_hooks import NAMED_HOOKS
from xray.plugin_info import described, try_out
from xray.plugins import BUILT_IN, Plugins, installed
from xray.runtime import runtime
from xray.sampling import choose, parse_capture, strategy, top
from xray.stage_types.base import Columns, Field, StageType
from xray.testing import Recorder, sample_calls

ROOT = Path(__file__).parents[2]
POOL = [{"id": f"c{n}", "n": n} for n in range(30)]


class Counting(StageType):
    """A well-behaved type."""

    name = "counting"
    meaning = "Counts."
    metrics = (Metric("counted", "candidates", "How many."),)

    def extract(self, call):
        return Columns([]) if call.output is None else Columns(list(call.output.ids), {"data": call.output.pieces})

    def compute(self, columns):
        return {"counted": len(columns)}


class Bringing:
    """A plugin that brings what it is given."""

    def __init__(self, stage_types=(), redactors=None, samplers=None):
        self.given = stage_types, redactors or {}, samplers or {}

    @xray.hookimpl
    def xray_stage_types(self):
        return self.given[0]

    @xray.hookimpl
    def xray_redactors(self):
        return self.given[1]

    @xray.hookimpl
    def xray_samplers(self):
        return self.given[2]


@pytest.fixture
def process(monkeypatch) -> Plugins:
    """The plugins of this process for the time of a test: the built-in ones, and what the test registers."""
    found = Plugins(entry_points=False)
    monkeypatch.setattr(plugins, "_current", found)
    monkeypatch.setattr(plugins, "_ready", True)
    return found


def changed(**attributes: Any) -> StageType:
    """A type that differs from a well-behaved one in some attributes."""
    return type("Changed", (Counting,), attributes)()


def recorded_by(stage_type: str, result: Any = None, **options: Any) -> Any:
    """The stage that a decorated callable recorded, which got its own value back."""
    given = POOL if result is None else result

    @xray.stage(stage_type, "s", **options)
    def work(pool):
        return given

    with Recorder() as recorder:
        assert work(POOL) is given
        (stage,) = recorder.last_run.stages
    return stage


# --- hooks ----------------------------------------------------------------------------------------------------------


def test_every_hook_is_documented_and_tested():
    """No hook without a section of docs/plugins.md, an example of it that runs, a docstring, and a test of its name."""
    specified = {
        name for name, value in vars(hookspecs).items() if inspect.isfunction(value) and hasattr(value, "xray_spec")
    }
    assert specified == set(hookspecs.HOOKS)
    assert specified == {"xray_stage_types", *(hook.name for hook in NAMED_HOOKS)}
    page = (ROOT / "docs" / "plugins.md").read_text()
    pages = (ROOT / "docs" / "plugins.md", ROOT / "docs" / "stage-types.md")
    examples = "".join(block.text for each in pages for block in blocks_of(each) if block.language == "python")
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    for hook in specified:
        assert inspect.getdoc(getattr(hookspecs, hook))
        assert f"### `{hook}`" in page, f"docs/plugins.md has no section for {hook}"
        assert f"def {hook}(self)" in examples, f"no example in the docs has the hook {hook}"
        assert f"def test_hook_{hook}(" in tests, f"there is no test of {hook}"


def test_hook_xray_stage_types(process):
    """A plugin's type records, and its metrics are those that it declares."""
    process.register(Bringing([Counting()]), "p")
    stage = recorded_by("counting")
    assert stage.metrics["counted"] == 30
    assert not process.problems
    assert not xray.stats().failures


def test_hook_xray_redactors(process):
    """A plugin's redactor is taken by name, alone and among other rules, in settings too."""
    process.register(Bringing(redactors={"digits": lambda path, value: "#" if str(value).isdigit() else value}), "p")
    redactor = Redactor("email, plugin:digits, re:se+cret")
    assert redactor.apply({"a": 17, "b": "x", "email": "e", "c": "a seecret"}) == {
        "a": "#", "b": "x", "email": REDACTED, "c": f"a {REDACTED}",
    }  # fmt: skip
    assert recorded_by("retrieval", redact="plugin:digits").rows[0]["data"] == {"id": "c0", "n": "#"}


def test_a_redactor_that_is_not_there_lets_nothing_through(process, monkeypatch, caplog):
    """At decoration the function stays undecorated; from the environment everything is made unreadable."""
    with pytest.raises(ConfigurationError, match="No plugin brings a redactor 'digitz'"):
        Redactor("plugin:digitz")

    def work(pool):
        return pool

    assert xray.filtering_stage("s", redact="plugin:digitz")(work) is work
    monkeypatch.setenv("XRAY_REDACT", "plugin:digitz")
    runtime.reset()  # reads the environment anew
    assert runtime.policy.redactor.apply({"a": "secret", "n": 1}) == {"a": REDACTED, "n": REDACTED}
    assert "Every value is made unreadable" in caplog.text


def test_hook_xray_samplers(process):
    """A plugin's strategy is named in texts and in Python, alone and in a union."""
    process.register(Bringing(samplers={"odd": lambda columns, n, rng: range(1, len(columns), 2)[:n]}), "p")
    columns = Columns([str(n) for n in range(10)], {"score": [float(n) for n in range(10)]})
    assert choose(strategy("odd", 3), columns, 1) == [1, 3, 5]
    union = parse_capture("top(1) | odd(2)").strategy
    assert union == top(1) | strategy("odd", 2)
    assert choose(union, columns, 1) == [1, 3, 9]
    assert parse_capture(str(union)).strategy == union
    with pytest.raises(ConfigurationError, match="Did you mean 'odd'"):
        parse_capture("oddd(2)")
    stage = recorded_by("retrieval", capture="odd(2)")
    assert [row["candidate_id"] for row in stage.rows] == ["c1", "c3"]
    assert stage.capture["reason"] == "odd(2)"


# --- loading --------------------------------------------------------------------------------------------------------


def test_modules_named_by_the_setting(tmp_path, monkeypatch, process):
    """Loaded by configure(); one that is not there is named, the others work."""
    (tmp_path / "a_plugin_of_mine.py").write_text(
        "import xray\nfrom tests.sdk.test_plugins import Counting\n"
        "@xray.hookimpl\ndef xray_stage_types():\n    return [Counting()]\n"
        "@xray.hookimpl\ndef xray_redactors():\n    return {'of_mine': lambda path, value: value}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        xray.configure(plugins="a_plugin_of_mine, not_there", redact="plugin:of_mine")
        xray.configure(plugins=["a_plugin_of_mine"])  # again is no second time
    finally:
        sys.modules.pop("a_plugin_of_mine", None)
    assert set(process.problems) == {"not_there"}
    (info,) = (info for info in process.infos() if info.name == "a_plugin_of_mine")
    assert (info.origin, sorted(info.hooks), info.stage_types) == (
        "setting plugins", ["xray_redactors", "xray_stage_types"], ["counting"],
    )  # fmt: skip
    with pytest.raises(ConfigurationError, match="no name of a module"):
        xray.configure(plugins="a plugin")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise ValueError('on purpose')", "ValueError: on purpose"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("import nowhere_at_all", "ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("def broken(", "SyntaxError"),
        ("", "It has no hook: no function of it is marked with @xray.hookimpl."),
        ("import xray\n@xray.hookimpl\ndef xray_stage_type(): return []", "There is no hook 'xray_stage_type'."),
        ("import xray\n@xray.hookimpl\ndef xray_stage_types(config): return []", "PluginValidationError"),
        ("import xray\n@xray.hookimpl\ndef xray_samplers(): 1 / 0", "xray_samplers: ZeroDivisionError"),
        ("import xray\n@xray.hookimpl\ndef xray_redactors(): raise SystemExit", "xray_redactors: SystemExit"),
        ("import xray\n@xray.hookimpl\ndef xray_redactors(): return ['mask']", "it must give a dict of names"),
        ("import xray\n@xray.hookimpl\ndef xray_redactors(): return {'Mask': str}", "'Mask' is not of the form"),
        ("import xray\n@xray.hookimpl\ndef xray_samplers(): return {'mine': 3}", "'mine' names cannot be called"),
        ("import xray\n@xray.hookimpl\ndef xray_samplers(): return {'top': len}", "one of X-Ray's own"),
        ("import xray\n@xray.hookimpl\ndef xray_stage_types(): return None", "'NoneType' object is not iterable"),
        ("import xray\n@xray.hookimpl\ndef xray_stage_types(): return ['x']", "is no instance of"),
        ("import xray\n@xray.hookimpl\ndef xray_stage_types(): return [xray.stage]", "is no instance of"),
    ],
)  # fmt: skip
def test_a_module_that_cannot_be_a_plugin_is_named(tmp_path, monkeypatch, caplog, source, said):
    """By name and cause, in problems and in the log; the built-in types are there."""
    (tmp_path / "hostile_module.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    try:
        with caplog.at_level(logging.WARNING, "xray"):
            found = Plugins((*BUILT_IN, "hostile_module"), entry_points=False)
    finally:
        sys.modules.pop("hostile_module", None)
    assert said in found.problems["hostile_module"][0]
    assert "hostile_module" in caplog.text
    assert "filtering" in found.stage_types


@pytest.mark.parametrize(
    ("stage_type", "said"),
    [
        (changed(name="filtering"), "Stage type 'filtering' of p is already brought by xray.stage_types.filtering"),
        (changed(name="Bad Name"), "not of the form"),
        (changed(name=None), "has no 'name'"),
        (changed(metrics=["counted"]), "'metrics' is no tuple of Metric"),
        (changed(columns="group"), "'columns' is no tuple of str"),
        (changed(fields=(Field("capture", "option", ""),)), "has a field 'capture', which every decorator has"),
        (changed(fields=(Field("id", "accessor", ""),)), "has a field 'id', which every decorator has"),
        (changed(metrics=(Metric("failratio", "", ""),)), "names that are equal without '_'"),
        (changed(metrics=(Metric("fail_ratio", "", "", kind="table"),)), "of kind table; that of 'filtering' is of"),
        (changed(metrics=(Metric("regex", "", ""),)), "has the name of an operator"),
        (changed(metrics=(Metric("elem_match", "", ""),)), "has the name of an operator"),
    ],
)
def test_a_type_that_clashes_or_is_malformed_is_left_out(process, stage_type, said):
    """And what else the plugin brings is there."""
    with pytest.raises(PluginError, match=said.replace("(", r"\(")):
        process.register(Bringing([stage_type, changed(name="other")]), "p")
    assert "other" in process.stage_types
    assert type(process.stage_type("filtering")).__module__ in BUILT_IN


def test_names_of_redactors_and_strategies_are_claimed_once(process):
    """The second plugin of a name is told who has it."""
    process.register(Bringing(redactors={"mask": str}, samplers={"mine": len}), "one")
    with pytest.raises(PluginError, match="'mask' of two is already brought by one"):
        process.register(Bringing(redactors={"mask": str}, samplers={"mine": len}), "two")
    assert len(process.problems["two"]) == 2


def test_operators_are_reserved_here_as_in_the_service():
    """The SDK cannot import the service; its list must not fall behind."""
    from xray_server.query.operators import RESERVED

    assert RESERVED <= RESERVED_NAMES


def test_a_plugin_that_decorates_while_it_is_loaded(tmp_path, monkeypatch):
    """Loading is not entered again, and the function is recorded."""
    (tmp_path / "decorating_plugin.py").write_text(
        "import xray\n@xray.filtering_stage('inner')\ndef keep(pool): return pool\n"
        "@xray.hookimpl\ndef xray_stage_types(): return []\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("XRAY_PLUGINS", "decorating_plugin")
    monkeypatch.setattr(plugins, "_current", None)
    monkeypatch.setattr(plugins, "_ready", False)
    try:
        assert "decorating_plugin" in {info.name for info in installed().infos()}
        assert not installed().problems
        assert hasattr(sys.modules["decorating_plugin"].keep, "__wrapped__")
    finally:
        sys.modules.pop("decorating_plugin", None)


# --- what raises, lies, is slow -------------------------------------------------------------------------------------


def boom(*_: Any) -> Any:
    raise RuntimeError("on purpose")


class Raising(Counting):
    name = "raising"
    candidates_in = extract = compute = panel = boom


def test_a_plugin_that_raises_everywhere(process, caplog):
    """The user's function has its value, the stage is stored without candidates, every failure is counted."""
    process.register(Bringing([Raising()], {"explode": boom}, {"explode": boom}), "hostile")
    stage = recorded_by("raising")
    assert stage.status == "success"
    assert stage.facts["extract_error"] == "RuntimeError: on purpose"
    assert stage.facts["metrics_error"] == "RuntimeError: on purpose"
    assert process.stage_type("raising").panel({}) == []
    assert {report.what: report.failures for report in process.reports()} == {
        "stage type raising: candidates_in": 1, "stage type raising: extract": 1, "stage type raising: compute": 1,
        "stage type raising: panel": 1,
    }  # fmt: skip
    assert xray.stats().failures["plugin hostile: stage type raising: extract"] == 1
    assert "stage type raising: extract of the plugin hostile failed: RuntimeError: on purpose" in caplog.text
    kept = recorded_by("retrieval", redact="plugin:explode", capture="explode(3)")
    assert len(kept.rows) == 3
    assert kept.rows[0]["data"] == {"id": FAILED, "n": FAILED}
    assert kept.capture["reason"].startswith("explode(3); explode(3) failed, 3 were taken at random (RuntimeError")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"extract": lambda self, call: None}, "extract gave NoneType, which is no Columns."),
        ({"extract": lambda self, call: Columns([1, 2])}, "no list of strings"),
        ({"extract": lambda self, call: Columns("abc")}, "no list of strings"),
        ({"extract": lambda self, call: Columns(["a"], [])}, "no dict of columns"),
        ({"compute": lambda self, columns: 3}, "compute gave int, which is no dict of metrics."),
        ({"compute": lambda self, columns: {"other": 3}}, "'other' is not declared"),
        ({"compute": lambda self, columns: {3: 3}}, "The metric 3 is not declared"),
        ({"compute": lambda self, columns: {"counted": "many"}}, "holds str, which is no number"),
        ({"compute": lambda self, columns: {"counted": True}}, "holds bool, which is no number"),
        ({"compute": lambda self, columns: {"counted": float("nan")}}, "no finite number"),
        ({"compute": lambda self, columns: {"counted": 2**70}}, "no finite number"),
        ({"compute": lambda self, columns: {"counted": {"a": 1}}}, "holds dict, which is no number"),
        ({"candidates_in": lambda self, result: 7}, "no list of lists"),
        ({"candidates_in": lambda self, result: ["text"]}, "no list of lists"),
        ({"extract": lambda self, call: Columns(["a"], {"data": [1, 2]})}, "no list of one value for each"),
        ({"extract": lambda self, call: Columns(["a"], {"price": [1]})}, "'price' is not declared"),
        ({"extract": lambda self, call: Columns(["a"], {"verdict": ["maybe"]})}, "a value that it cannot have"),
        ({"extract": lambda self, call: Columns(["a"], {"rank": [-1]})}, "a value that it cannot have"),
        ({"extract": lambda self, call: Columns(["a"], {"checks": [3]})}, "a value that it cannot have"),
    ],
)
def test_a_plugin_that_gives_wrong_types(process, wrong, said):
    """Only what is wrong is left out, and it is said; what is sent can be stored by a service that has the plugin."""
    from xray_server.validation import validate_event

    process.register(Bringing([changed(**wrong)]), "liar")

    @xray.stage("counting", "s")
    def work(pool):
        return pool

    with Recorder() as recorder:
        assert work(POOL) is POOL
        events = recorder.events
    for event in events:
        validate_event(event, "event", process)
    messages = [report.message or "" for report in process.reports() if report.failures]
    assert any(said in message for message in messages), messages


def test_values_that_are_no_json_are_made_so(process):
    """What a type's own column or facts hold cannot stop a batch from being sent."""
    import msgspec

    class Odd(Counting):
        columns = ("thing",)

        def extract(self, call):
            return Columns(["a"], {"thing": [object()]}, {"fact": {1: object()}})

    process.register(Bringing([Odd()]), "odd")
    with Recorder() as recorder:
        xray.stage("counting", "s")(lambda pool: pool)(POOL)
        for event in recorder.events:
            msgspec.msgpack.encode(event)


def test_numbers_of_numpy_are_numbers(process):
    """A type that computes with NumPy need not convert."""
    numpy = pytest.importorskip("numpy")
    process.register(Bringing([changed(compute=lambda self, columns: {"counted": numpy.int64(len(columns))})]), "p")
    assert recorded_by("counting").metrics["counted"] == 30


@pytest.mark.parametrize("chosen", [[99], [-1], ["a"], [True], list(range(20)), None, 5])
def test_a_strategy_that_chooses_what_is_not_there(process, chosen):
    """As many as asked for are taken at random instead, and the stage says so."""
    process.register(Bringing(samplers={"wrong": lambda columns, n, rng: chosen}), "liar")
    stage = recorded_by("retrieval", capture="wrong(4)")
    assert len(stage.rows) == 4
    assert "wrong(4) failed, 4 were taken at random" in stage.capture["reason"]


def test_what_is_slow_on_the_callers_thread_is_switched_off(process, monkeypatch, caplog):
    """After some overruns it is called no more, the log says so, and results are looked at the ordinary way."""
    monkeypatch.setattr(guarded_types, "CALL_BUDGET_S", 0.0)  # anything is too slow
    calls = []

    def slow(self, result):
        calls.append(1)
        return [result]

    process.register(Bringing([changed(candidates_in=slow)]), "snail")

    @xray.stage("counting", "s")
    def work(pool):
        return pool

    with Recorder() as recorder:
        for _ in range(12):
            assert work(POOL) is POOL
        stages = [run.stages[0] for run in recorder.runs]
    assert len(calls) == guard.MAX_OVERRUNS
    assert [len(stage.rows) for stage in stages] == [30] * 12
    assert "stage type counting: candidates_in of the plugin snail is switched off in this process" in caplog.text
    (report,) = (report for report in process.reports() if "candidates_in" in report.what)
    assert (report.switched_off, report.overruns) == (True, guard.MAX_OVERRUNS)


def test_what_never_ends_in_the_worker_holds_up_nobody(process, monkeypatch):
    """The worker goes on after the deadline; after some such calls the hook is switched off."""
    monkeypatch.setattr(guarded_types, "DEADLINE_S", 0.02)
    end = threading.Event()
    calls = []

    def hang(self, call):
        calls.append(1)
        end.wait()
        return Columns([])

    process.register(Bringing([changed(extract=hang)]), "stuck")

    @xray.stage("counting", "s")
    def work(pool):
        return pool

    try:
        with Recorder() as recorder:
            for _ in range(8):
                work(POOL)
            stages = [run.stages[0] for run in recorder.runs]
    finally:
        end.set()
    assert len(calls) == guard.MAX_OVERRUNS
    assert [stage.facts["extract_error"].partition(":")[0] for stage in stages] == [
        *["OverrunError"] * guard.MAX_OVERRUNS, *["SwitchedOffError"] * 3,
    ]  # fmt: skip


def test_a_slow_redactor_is_switched_off_and_lets_nothing_through(process):
    """Its values are lost, not readable."""
    process.register(Bringing(redactors={"slow": lambda path, value: value}), "snail")
    process.redactor("slow")[1].budget_s = -1.0  # anything is too slow
    redactor = Redactor("plugin:slow")
    found = redactor.apply([f"secret {n}" for n in range(guard.MAX_OVERRUNS + 3)])
    assert found[-3:] == [FAILED] * 3


def test_some_slow_calls_among_many_switch_nothing_off():
    """A pause of the machine now and then is no reason; too many within a hundred calls are."""
    watched = Guard("p", "x", 1.0)
    for number in range(1000):
        watched.budget_s = -1.0 if number % 25 == 0 else 1.0
        watched.call(int)
    assert not watched.switched_off
    assert watched.report().overruns == 40
    watched.budget_s = -1.0
    for _ in range(guard.MAX_OVERRUNS):
        watched.call(int)
    with pytest.raises(SwitchedOffError):
        watched.call(int)


def test_calls_within_a_deadline():
    """Results and errors come through; a call that does not end is left behind, and the next has a thread."""
    watched = Guard("p", "x", 0.02)
    end = threading.Event()
    with pytest.raises(OverrunError):
        watched.call_within(end.wait)
    end.set()
    watched.budget_s = 30.0
    assert watched.call_within(lambda: 3) == 3
    with pytest.raises(RuntimeError, match="on purpose"):
        watched.call_within(boom)
    with pytest.raises(PluginError, match="SystemExit"):
        watched.call_within(sys.exit)
    assert watched.call_within(lambda: threading.current_thread().daemon) is True
    assert watched.report().failures == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_calls_in_a_forked_child():
    """The child has none of its parent's threads, and makes its own."""
    watched = Guard("p", "x", 30.0)
    assert watched.call_within(lambda: 1) == 1
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if watched.call_within(lambda: 7) == 7 else 1)
        except BaseException:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_many_threads_call_at_once():
    """Each gets its own answer."""
    watched = Guard("p", "x", 30.0)
    wrong = []

    def call(number):
        for n in range(50):
            found = watched.call_within(lambda value: value, (number, n))
            if found != (number, n):
                wrong.append(found)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert watched.report().calls == 400


def test_trying_out_finds_what_is_wrong(process):
    """What ``xray plugins --check`` does: everything is called once, and the reports say what failed."""
    process.register(Bringing([Raising(), Counting()], {"explode": boom}, {"explode": boom}), "hostile")
    try_out(process)
    found = described(process)
    failed = {call["what"] for call in found["calls"] if call["failures"]}
    assert failed == {
        "stage type raising: candidates_in", "stage type raising: extract", "stage type raising: panel",
        "redactor explode", "strategy explode",
    }  # fmt: skip
    (row,) = (row for row in found["plugins"] if row["name"] == "hostile")
    assert [each["name"] for each in row["stage_types"]] == ["raising", "counting"]
    assert row["stage_types"][1]["metrics"][0]["meaning"] == "How many."


def test_the_order_of_chance_is_not_the_plugins_to_disturb(process):
    """A strategy that draws gets the same numbers each time."""
    process.register(Bringing(samplers={"drawn": lambda columns, n, rng: rng.sample(range(len(columns)), n)}), "p")
    columns = Columns([str(n) for n in range(100)])
    assert choose(strategy("drawn", 5), columns, 3) == choose(strategy("drawn", 5), columns, 3)
    assert choose(strategy("drawn", 5), columns, 3) != choose(strategy("drawn", 5), columns, 4)


def test_what_a_plugin_gets_it_cannot_change(process):
    """A strategy that empties its columns empties a copy."""

    def greedy(columns, n, rng):
        columns.candidate_id.clear()
        columns.values.clear()
        return [0]

    process.register(Bringing(samplers={"greedy": greedy}), "p")
    assert [row["candidate_id"] for row in recorded_by("retrieval", capture="greedy(3)").rows] == ["c0"]


def test_samples_bear_the_built_in_types():
    """The made-up stages are such that every built-in type extracts something or nothing from each."""
    for stage_type in Plugins(entry_points=False).stage_types.values():
        for call in sample_calls():
            assert isinstance(stage_type.extract(call), Columns)
