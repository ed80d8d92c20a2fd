"""Rebook a passenger whose flight was cancelled: real flights, candidates as frozen dataclasses.

The pipeline ``flight_rebooking`` decides which flight the passenger takes instead:

1. ``later_flights`` (retrieval) fetches every flight that leaves New York after the planned departure on the same
   day, or before noon on the next day: some 400 to 1,300 candidates.
2. ``route`` (filtering) rejects ``other_destination``, then ``other_airport``: another of New York's three airports,
   unless the passenger would change.
3. ``timing`` (filtering) rejects ``cancelled``; then ``departs_too_early``: less than 60 minutes after the planned
   departure, 180 where the passenger has to change airports; then ``arrives_too_late``: more hours after the planned
   arrival than the passenger accepts.
4. ``comfort`` (scoring): the flight's punctuality, less 0.05 for each hour that it arrives later than planned, less
   0.1 for a change of airports. Punctuality is the share of the airline's flights to that destination in 2013 that
   arrived at most 15 minutes late; cancelled and diverted ones did not.
5. ``best_first`` (ranking) sorts by that score, the earlier departure first where it is equal.

What to look at: ``route`` always rejects almost everything, which is its job. ``timing`` is where it gets
interesting: where it rejects nearly all in a snowstorm, the label is ``cancelled`` and nothing can be done; where it
is ``arrives_too_late``, the passenger might be asked to accept an hour more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Annotated

from xray import (
    Candidates,
    entrypoint,
    filtering_stage,
    pipeline,
    ranking_stage,
    retrieval_stage,
    scoring_stage,
)

from .data import flight_rows


@dataclass(frozen=True, slots=True)
class Flight:
    """A scheduled flight; times are local to the airport that they are about."""

    id: str
    carrier: str
    origin: str
    destination: str
    departs: datetime
    arrives: datetime
    cancelled: bool


@dataclass(frozen=True, slots=True)
class Passenger:
    """Somebody whose flight, ``flight_id``, was cancelled, and what they would put up with."""

    id: str
    flight_id: str
    accepted_delay_h: int
    changes_airport: bool


@dataclass(frozen=True, slots=True)
class Judged:
    """A flight with the verdict of a filter."""

    flight: Flight
    passed: bool
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Timetable:
    """The flights that passengers may be offered, and how punctual each airline is on each route."""

    flights: dict[str, Flight]
    punctuality: dict[tuple[str, str], float]


PASSENGERS = (
    # 8 February 2013: a snowstorm closes in; from the afternoon on nearly everything is cancelled.
    Passenger("P01", "2013-02-08/UA535/JFK", 12, changes_airport=False),
    Passenger("P02", "2013-02-08/9E3422/JFK", 8, changes_airport=True),
    Passenger("P03", "2013-02-08/DL1585/LGA", 24, changes_airport=True),
    Passenger("P04", "2013-02-08/US2185/LGA", 24, changes_airport=False),
    # 8 March and 23 May: snow and thunderstorms, with most flights still going.
    Passenger("P05", "2013-03-08/US2126/LGA", 4, changes_airport=False),
    Passenger("P06", "2013-03-08/EV3826/EWR", 10, changes_airport=True),
    Passenger("P07", "2013-05-23/DL935/EWR", 6, changes_airport=True),
    Passenger("P08", "2013-05-23/UA289/EWR", 18, changes_airport=False),
    Passenger("P09", "2013-05-23/WN404/LGA", 12, changes_airport=False),
    # 22 July, 12 September and 10 December: mostly late in the day, when night flights or the next morning decide.
    Passenger("P10", "2013-07-22/B61271/LGA", 16, changes_airport=True),
    Passenger("P11", "2013-07-22/AA371/LGA", 12, changes_airport=False),
    Passenger("P12", "2013-09-12/UA525/LGA", 5, changes_airport=True),
    Passenger("P13", "2013-12-10/UA1246/EWR", 8, changes_airport=False),
    Passenger("P14", "2013-12-10/AA1029/JFK", 4, changes_airport=False),
)
"""Fourteen passengers of flights that really were cancelled."""


@pipeline("flight_rebooking", id="request_id", version="1.0")
class FlightRebooking:
    """One request of one passenger."""

    def __init__(self, request_id: str, timetable: Timetable) -> None:
        self.request_id = request_id
        self.timetable = timetable

    @entrypoint
    def rebook(self, passenger: Passenger) -> Flight | None:
        """The flight that the passenger takes instead, or None where there is none."""
        planned = self.timetable.flights[passenger.flight_id]
        flights = self.later_flights(planned)
        flights = [judged.flight for judged in self.route(flights, planned, passenger) if judged.passed]
        flights = [judged.flight for judged in self.timing(flights, planned, passenger) if judged.passed]
        ranked = self.best_first(self.comfort(flights, planned))
        return ranked[0][0] if ranked else None

    @retrieval_stage("later_flights", id="id")
    def later_flights(self, planned: Flight) -> list[Flight]:
        """What leaves after the planned departure, up to noon of the next day."""
        noon = datetime.combine(planned.departs.date() + timedelta(days=1), time(12))
        return [flight for flight in self.timetable.flights.values() if planned.departs < flight.departs < noon]

    @filtering_stage(
        "route", id="flight.id", passed="passed", reason_label="reason", labels={"other_destination", "other_airport"}
    )
    def route(
        self, flights: Annotated[list[Flight], Candidates("flights")], planned: Flight, passenger: Passenger
    ) -> list[Judged]:
        """Does it go there, from an airport that the passenger accepts?"""

        def judge(flight: Flight) -> Judged:
            if flight.destination != planned.destination:
                return Judged(flight, False, "other_destination")
            if flight.origin != planned.origin and not passenger.changes_airport:
                return Judged(flight, False, "other_airport")
            return Judged(flight, True)

        return [judge(flight) for flight in flights]

    @filtering_stage(
        "timing",
        id="flight.id",
        passed="passed",
        reason_label="reason",
        labels={"cancelled", "departs_too_early", "arrives_too_late"},
    )
    def timing(
        self, flights: Annotated[list[Flight], Candidates("flights")], planned: Flight, passenger: Passenger
    ) -> list[Judged]:
        """Does it go at all, can the passenger reach it, and is it there in time?"""
        latest = planned.arrives + timedelta(hours=passenger.accepted_delay_h)

        def judge(flight: Flight) -> Judged:
            needed = timedelta(minutes=60 if flight.origin == planned.origin else 180)
            if flight.cancelled:
                return Judged(flight, False, "cancelled")
            if flight.departs < planned.departs + needed:
                return Judged(flight, False, "departs_too_early")
            if flight.arrives > latest:
                return Judged(flight, False, "arrives_too_late")
            return Judged(flight, True)

        return [judge(flight) for flight in flights]

    @scoring_stage("comfort", id="id", score=1)
    def comfort(
        self, flights: Annotated[list[Flight], Candidates("flights")], planned: Flight
    ) -> list[tuple[Flight, float]]:
        """Each flight with its score."""

        def score(flight: Flight) -> float:
            hours_late = max(0.0, (flight.arrives - planned.arrives) / timedelta(hours=1))
            change = 0.0 if flight.origin == planned.origin else 0.1
            punctuality = self.timetable.punctuality[flight.carrier, flight.destination]
            return round(punctuality - 0.05 * hours_late - change, 4)

        return [(flight, score(flight)) for flight in flights]

    @ranking_stage("best_first", id="id", score=1)
    def best_first(
        self, scored: Annotated[list[tuple[Flight, float]], Candidates("flights")]
    ) -> list[tuple[Flight, float]]:
        """The highest score first."""
        return sorted(scored, key=lambda pair: (-pair[1], pair[0].departs))


def load_timetable(days: Iterable[date]) -> Timetable:
    """Read the flights of these days, and every airline's punctuality, in one pass over the year."""
    wanted = set(days)
    flights: dict[str, Flight] = {}
    total: Counter[tuple[str, str]] = Counter()
    punctual: Counter[tuple[str, str]] = Counter()
    wanted_text = {(str(day.month), str(day.day)): day for day in wanted}
    for month, day_of_month, carrier, number, origin, destination, departs, arrives, left, delay in flight_rows(
        "month",
        "day",
        "carrier",
        "flight",
        "origin",
        "dest",
        "sched_dep_time",
        "sched_arr_time",
        "dep_time",
        "arr_delay",
    ):
        route = (carrier, destination)
        total[route] += 1
        punctual[route] += delay != "NA" and int(delay) <= 15
        day = wanted_text.get((month, day_of_month))
        if day is not None:
            flight_id = f"{day}/{carrier}{number}/{origin}"
            departure, arrival = _at(day, departs), _at(day, arrives)
            if arrival < departure:
                arrival += timedelta(days=1)
            flights[flight_id] = Flight(flight_id, carrier, origin, destination, departure, arrival, left == "NA")
    return Timetable(flights, {route: punctual[route] / count for route, count in total.items()})


def _at(day: date, clock: str) -> datetime:
    """The moment of a clock reading such as ``"1530"`` or ``"5"`` (five past midnight)."""
    hours, minutes = divmod(int(clock), 100)
    return datetime.combine(day, time(hours, minutes))


def run_all() -> dict[str, Flight | None]:
    """Rebook every passenger; the results by the passenger's id."""
    days = {date.fromisoformat(passenger.flight_id.split("/")[0]) for passenger in PASSENGERS}
    timetable = load_timetable(days | {day + timedelta(days=1) for day in days})
    return {passenger.id: FlightRebooking(passenger.id, timetable).rebook(passenger) for passenger in PASSENGERS}


if __name__ == "__main__":
    for passenger_id, flight in run_all().items():
        print(passenger_id, "→", f"{flight.id} to {flight.destination} at {flight.departs}" if flight else "no flight")
