"""The numbers that a question needs: of the texts and metrics that it names, and of a field's texts in their order."""

from __future__ import annotations

from collections.abc import Iterator

from pymongo.asynchronous.database import AsyncDatabase

from xray_server.query.ast import And, Compare, Condition, Field, In, Metric, Not, Or, Reference, Test
from xray_server.stores.mongo.forms import Form, Raw, metric_path
from xray_server.stores.mongo.layout import USUAL, WORDS, Place
from xray_server.stores.mongo.words import ITSELF, METRIC, NOTHING, ODD, Word, Words


class Known:
    """Numbers that were looked up for one question; what has none has one that no document has.

    Args:
        project: The project's number.
        numbers: The numbers of single words.
        fields: Field → the numbers of all its texts.
    """

    def __init__(self, project: int, numbers: dict[Word, int], fields: dict[str, dict[str | None, int]]) -> None:
        self.project = project
        self._numbers = numbers
        self._fields = fields

    @property
    def itself(self) -> int:
        """The number that stands for the project in lists of words."""
        return self._numbers.get(Word(self.project, ITSELF, None), -1)

    def name(self, text: str) -> int:
        """The number of a stage's name."""
        return self._numbers.get(Word(self.project, "name", text), -1)

    def word(self, place: Place, text: str | None) -> int | None:
        """The number of a field's text; None, which stands for a path that is not there, for what is left out."""
        if place.storage == "mostly" and text == USUAL[place.field]:
            return None
        return self._numbers.get(Word(self.project, place.field, text), -1)

    def texts(self, place: Place) -> set[str]:
        """The texts of a field."""
        fields = (place.field, "name") if place.storage == "as_name" else (place.field,)
        return {text for field in fields for text in self._fields[field] if text is not None}

    def metric(self, metric: Metric) -> str:
        """The path to a metric."""
        name, key = (None if part is None else self._metric_word(part) for part in (metric.name, metric.key))
        return metric_path(name or NOTHING, key)

    def metric_word(self, metric: Metric) -> int:
        """The number of a metric's name."""
        return self._metric_word(metric.name)

    def is_odd(self, metric: Metric) -> bool:
        """Whether some stage has, or had, something else under the metric's name than a number or a table of them."""
        return Word(self.project, ODD, metric.name) in self._numbers

    def _metric_word(self, name: str) -> int:
        return self._numbers.get(Word(self.project, METRIC, name), NOTHING)


class Wanted:
    """Collects what is to be looked up."""

    def __init__(self) -> None:
        self._texts: set[tuple[str, str | None]] = {(ITSELF, None)}
        self._fields: set[str] = set()

    def condition(self, condition: Condition, form: Form) -> None:
        """What a condition needs."""
        for test in _tests(condition):
            self._test(test, form)

    def order(self, reference: Reference, form: Form) -> None:
        """What an order by something needs."""
        place = place_of(reference, form) if isinstance(reference, Field) else None
        if isinstance(reference, Metric):
            self._metric(reference)
        elif place is not None and place.storage in WORDS:
            self._all_of(place)
            self._texts.add((place.field, None))

    def _all_of(self, place: Place) -> None:
        self._fields.update(("path", "name") if place.storage == "as_name" else (place.field,))

    def _test(self, test: Test, form: Form) -> None:
        if isinstance(test.reference, Metric):
            self._metric(test.reference)
            return
        place = place_of(test.reference, form)
        if place is None or place.storage not in WORDS:
            return
        match test.operator:
            case Compare("eq", str() as text):
                self._text(place, text)
            case Compare(_, str()):
                self._all_of(place)
            case In(values):
                for value in values:
                    if isinstance(value, str):
                        self._text(place, value)
                    elif value is None:
                        self._texts.add((place.field, None))
            case _:
                self._texts.add((place.field, None))

    def _text(self, place: Place, text: str) -> None:
        self._texts.add((place.field, text))
        if place.storage == "as_name":
            self._texts.add(("name", text))

    def _metric(self, metric: Metric) -> None:
        self._texts.update((METRIC, part) for part in (metric.name, metric.key) if part is not None)
        self._texts.add((ODD, metric.name))

    async def look_up(self, words: Words, database: AsyncDatabase[Raw], project: str) -> Known:
        """Look all of it up."""
        number = await words.project(database, project)
        fields = {field: await words.of_field(database, number, field) for field in sorted(self._fields)}
        wanted = [Word(number, field, text) for field, text in self._texts if _is_text(text)]
        numbers = await words.numbers(database, wanted)
        for field, texts in fields.items():
            numbers |= {Word(number, field, text): found for text, found in texts.items()}
        return Known(number, numbers, fields)


def place_of(reference: Field, form: Form) -> Place | None:
    """Where a field lies in the open, or None where it does not."""
    path = reference.path
    if len(path) > 2 or (len(path) == 2 and path[0] != "pipeline"):
        return None
    place = form.places.get(".".join(path))
    return None if place is None or place.storage in ("rest", "metrics") else place


def _tests(condition: Condition) -> Iterator[Test]:
    match condition:
        case And(conditions) | Or(conditions):
            for inner in conditions:
                yield from _tests(inner)
        case Not(inner):
            yield from _tests(inner)
        case Test():
            yield condition


def _is_text(text: str | None) -> bool:
    """Whether it is a text that there can be: one with a lone surrogate is none."""
    return text is None or text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)
