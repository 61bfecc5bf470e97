"""Subjects of charts: quantities with units, and the things for which they are measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Kin:
    """Things of one kind, whose names label an axis or a legend."""

    noun: str
    """What one of them is called, such as `city`."""
    plural: str
    """What several of them are called."""
    names: tuple[str, ...]
    """Their names, in their order if they have one."""
    ordered: bool = False
    """Whether their order means something, so that lines may join their values."""
    at: str = "for"
    """Preposition before a name: `in 2019`, `on Monday`, `for Oslo`."""


@dataclass(frozen=True)
class Quantity:
    """A quantity that is measured."""

    name: str
    """Its name in lower case, as in `the rainfall for Oslo`."""
    unit: str
    """Unit in plural; empty for plain counts."""
    steps: tuple[int, ...] = (2, 10, 20, 50, 100)
    """Suitable distances of grid lines, in units of the last decimal."""
    decimals: int = 0
    """Decimals of its values."""
    adds: bool = True
    """Whether sums of it mean something; marks and temperatures are never stacked."""


@dataclass(frozen=True)
class Topic:
    """Quantities that are measured for the same things."""

    quantities: tuple[Quantity, ...]
    """The quantities."""
    across: tuple[str, ...]
    """Keys of `KINS` that may label the axis."""
    groups: tuple[str, ...]
    """Keys of `KINS` that may label the series."""


def _years(first: int) -> Kin:
    return Kin(
        "year",
        "years",
        tuple(str(year) for year in range(first, first + 14)),
        ordered=True,
        at="in",
    )


_MONTHS = "January February March April May June July August September October November December"
_CITIES = "Oslo Lima Cairo Osaka Quito Turin Perth Lagos Ghent Dhaka Sofia Tampa Leeds Accra"
_LANDS = "Chile Kenya Norway Japan Peru Spain Ghana Nepal Italy Egypt Latvia Brazil Canada Vietnam"

KINS: dict[str, Kin] = {
    "cities": Kin("city", "cities", tuple(_CITIES.split())),
    "countries": Kin("country", "countries", tuple(_LANDS.split())),
    "months": Kin("month", "months", tuple(_MONTHS.split()), ordered=True, at="in"),
    "short months": Kin(
        "month", "months", tuple(m[:3] for m in _MONTHS.split()), ordered=True, at="in"
    ),
    "quarters": Kin("quarter", "quarters", ("Q1", "Q2", "Q3", "Q4"), ordered=True, at="in"),
    "past years": _years(1996),
    "years": _years(2010),
    "weeks": Kin("week", "weeks", tuple(f"Week {n}" for n in range(1, 11)), ordered=True, at="in"),
    "days": Kin(
        "day", "days", ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"), ordered=True, at="on"
    ),
    "hours": Kin(
        "time", "times", tuple(f"{hour:02d}:00" for hour in range(6, 22, 2)), ordered=True, at="at"
    ),
    "departments": Kin(
        "department",
        "departments",
        ("Sales", "Research", "Legal", "Finance", "Support", "Design", "Logistics", "IT"),
    ),
    "products": Kin(
        "product",
        "products",
        ("Lamp", "Desk", "Chair", "Shelf", "Sofa", "Mirror", "Carpet", "Clock"),
    ),
    "brands": Kin(
        "brand",
        "brands",
        ("Altera", "Bolden", "Corvia", "Dunmore", "Elstar", "Fenwick", "Galdo", "Harlan"),
    ),
    "fruits": Kin(
        "fruit",
        "fruits",
        ("Apples", "Pears", "Plums", "Cherries", "Grapes", "Figs", "Lemons", "Melons"),
    ),
    "crops": Kin(
        "crop", "crops", ("Wheat", "Maize", "Rice", "Barley", "Oats", "Rye", "Soy", "Potatoes")
    ),
    "animals": Kin(
        "animal",
        "animals",
        ("Otter", "Lynx", "Heron", "Badger", "Moose", "Beaver", "Falcon", "Hare"),
    ),
    "sources": Kin(
        "source", "sources", ("Wind", "Solar", "Hydro", "Nuclear", "Gas", "Coal", "Biomass", "Oil")
    ),
    "transport": Kin(
        "means of transport",
        "means of transport",
        ("Bus", "Tram", "Car", "Bicycle", "Train", "Ferry"),
    ),
    "sports": Kin(
        "sport",
        "sports",
        ("Football", "Tennis", "Rowing", "Judo", "Hockey", "Cricket", "Archery", "Golf"),
    ),
    "teams": Kin(
        "team",
        "teams",
        ("Comets", "Rovers", "Herons", "Pilots", "Wolves", "Giants", "Sparks", "Mariners"),
    ),
    "subjects": Kin(
        "subject",
        "subjects",
        ("Maths", "History", "Physics", "Music", "Latin", "Biology", "Art", "Law"),
    ),
    "ages": Kin(
        "age group", "age groups", ("0-17", "18-29", "30-44", "45-59", "60-74", "75+"), ordered=True
    ),
    "stores": Kin(
        "store",
        "stores",
        ("North", "South", "East", "West", "Centre", "Harbour", "Airport", "Station"),
    ),
    "schools": Kin(
        "school", "schools", ("Hillside", "Lakeview", "Oakwood", "Riverton", "Ashford", "Milton")
    ),
    "media": Kin(
        "medium", "media", ("Radio", "Books", "Podcasts", "Cinema", "Games", "Papers", "Television")
    ),
    "methods": Kin(
        "method",
        "methods",
        ("Baseline", "Method A", "Method B", "Method C", "Method D", "Method E"),
    ),
    "tests": Kin(
        "test",
        "tests",
        ("Test 1", "Test 2", "Test 3", "Test 4", "Test 5", "Test 6", "Test 7", "Test 8"),
    ),
    "rooms": Kin(
        "room", "rooms", ("Kitchen", "Office", "Attic", "Cellar", "Hall", "Studio", "Garage")
    ),
}
"""Kinds of things, by name."""

_TIMES = ("months", "short months", "quarters", "past years", "years")

TOPICS: tuple[Topic, ...] = (
    Topic(
        (
            Quantity("rainfall", "millimetres", (10, 20, 50)),
            Quantity("sunshine", "hours", (10, 20, 50)),
        ),
        ("months", "short months", "cities", "years", "countries"),
        ("cities", "countries"),
    ),
    Topic(
        (
            Quantity("revenue", "million dollars"),
            Quantity("profit", "thousand euros"),
            Quantity("number of orders", "thousands"),
        ),
        (*_TIMES, "departments", "stores", "brands", "products"),
        ("stores", "brands", "products"),
    ),
    Topic(
        (
            Quantity("number of employees", "", (2, 10, 20)),
            Quantity("budget", "thousand dollars", (10, 50, 100)),
        ),
        ("departments", "quarters", "years", "stores"),
        ("departments", "stores"),
    ),
    Topic(
        (
            Quantity("harvest", "tonnes", (10, 20, 100)),
            Quantity("export volume", "tonnes", (20, 50, 100)),
        ),
        ("crops", "fruits", "countries", "years", "past years"),
        ("countries",),
    ),
    Topic(
        (
            Quantity("output", "gigawatt hours", (10, 20, 100)),
            Quantity("capacity", "megawatts", (20, 100, 200)),
        ),
        ("sources", "countries", *_TIMES),
        ("sources", "countries"),
    ),
    Topic(
        (
            Quantity("number of sightings", "", (2, 4, 10, 20)),
            Quantity("population", "animals", (20, 100, 200)),
        ),
        ("animals", "months", "short months", "years"),
        ("animals",),
    ),
    Topic(
        (
            Quantity("number of passengers", "thousands", (2, 10, 20, 50)),
            Quantity("number of trips", "millions", (2, 10), 1),
        ),
        ("transport", "days", "weeks", "hours", "cities", "years"),
        ("transport", "cities"),
    ),
    Topic(
        (Quantity("score", "points", (2, 4, 10, 20)), Quantity("number of medals", "", (2, 4, 10))),
        ("teams", "countries", "years", "weeks"),
        ("teams", "countries"),
    ),
    Topic(
        (
            Quantity("number of pupils", "", (10, 20, 50, 100)),
            Quantity("average mark", "points", (2, 4, 20), 1, adds=False),
        ),
        ("schools", "subjects", "years"),
        ("schools", "subjects"),
    ),
    Topic(
        (
            Quantity("time spent", "minutes a day", (2, 10, 20)),
            Quantity("number of users", "millions", (2, 4, 10, 20), 1),
        ),
        ("media", "ages", "days", "countries", "years"),
        ("media", "countries", "ages"),
    ),
    Topic(
        (
            Quantity("temperature", "degrees Celsius", (2, 4, 10), 1, adds=False),
            Quantity("power use", "kilowatt hours", (2, 4, 10), 1),
        ),
        ("rooms", "hours", "days", "months"),
        ("rooms",),
    ),
    Topic(
        (
            Quantity("accuracy", "points", (20, 50, 100), 1, adds=False),
            Quantity("run time", "seconds", (2, 10, 20), 1),
        ),
        ("methods", "tests"),
        ("methods", "tests"),
    ),
)
"""All topics."""


def some_names(rng: np.random.Generator, kin: Kin, count: int) -> tuple[str, ...]:
    """`count` names: consecutive ones if they are ordered, else any in any order."""
    if kin.ordered:
        start = int(rng.integers(0, len(kin.names) - count + 1))
        return kin.names[start : start + count]
    return tuple(kin.names[index] for index in rng.permutation(len(kin.names))[:count].tolist())
