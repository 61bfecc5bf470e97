"""The text of pages: sentences of a small grammar, names, codes, dates and amounts, or lines of
the user's own text.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(" ".join(phrase.split()) for phrase in text.split("|"))


_KINDS = _words(
    """quiet narrow early heavy local bright former second annual careful modern distant simple broken golden frequent
    public steady ancient curious polite sudden northern ordinary"""
)
_THINGS = _words(
    """harbour window report engine garden letter market winter bridge paper teacher village signal ticket library
    morning island captain journey kitchen factory question museum painter valley record station weather"""
)
_DOINGS = _words(
    """opened crossed described repaired followed measured painted returned carried replaced visited noticed collected
    answered reached finished"""
)
_PLACES = _phrases(
    """near the river|behind the old school|after a long delay|before noon|at the end of May|without a sound|
    in the second year|on a rainy evening|for the first time|under the new rules"""
)
_FIRST = _words(
    "Anna Boris Clara David Elena Farid Greta Hugo Irene Jonas Karim Lucia Marco Nadia Oskar Priya"
)
_LAST = _words(
    "Adler Becker Costa Dahl Ekman Fischer Grant Hansen Ito Jansen Kowal Lopez Moreau Novak Olsen Patel"
)
_STREETS = _words("Mill Station Garden Church Harbour Linden Castle Market Bridge Forest")
_TOWNS = _words("Ashford Brookton Carlow Denholm Elmsby Fairmont Glenrock Hartley")
_MONTHS = _words(
    "January February March April May June July August September October November December"
)
_SYLLABLES = _words("ka lo mi ren ta vo zel bur dan fi gor hu jen pra sol tur")
_GOODS = _words(
    """Bread Milk Coffee Butter Apples Rice Soap Paper Candles Honey Pasta Cheese Olives Tea Flour Salt Batteries
    Notebook Pencils Lemons Yoghurt Tomatoes Chocolate Vinegar"""
)


class Writer:
    """Generates random text; all choices come from one random generator."""

    def __init__(self, rng: np.random.Generator, lines: Sequence[str] = ()) -> None:
        self.rng = rng
        self._lines = lines

    def one(self, names: Sequence[str]) -> str:
        """One of these names."""
        return names[int(self.rng.integers(len(names)))]

    def some(self, names: Sequence[str], count: int) -> list[str]:
        """`count` different ones of these names."""
        return [names[index] for index in self.rng.permutation(len(names))[:count].tolist()]

    def sentence(self) -> str:
        """A sentence, or one of the user's lines."""
        if self._lines:
            return self.one(self._lines)
        draw = self.rng.random()
        if draw < 0.1:
            return f"{self.one(_FIRST)} {self.one(_LAST)} paid {self.amount()} on {self.date()}."
        if draw < 0.2:
            return f"See {self.one(_THINGS)} {self.code()} on page {self.rng.integers(2, 400)}."
        ending = f" {self.one(_PLACES)}" if self.rng.random() < 0.6 else ""
        return f"{self._thing().capitalize()} {self.one(_DOINGS)} {self._thing()}{ending}."

    def paragraph(self) -> str:
        """A few sentences."""
        return " ".join(self.sentence() for _ in range(int(self.rng.integers(2, 6))))

    def heading(self) -> str:
        """A short title without a full stop."""
        return f"The {self.one(_KINDS)} {self.one(_THINGS)}"

    def person(self) -> str:
        """First and last name."""
        return f"{self.one(_FIRST)} {self.one(_LAST)}"

    def company(self) -> str:
        """A name that is in no dictionary, so that it has to be read."""
        return "".join(self.some(_SYLLABLES, 3)).capitalize()

    def address(self) -> str:
        """Number, street and town."""
        return f"{self.rng.integers(1, 200)} {self.one(_STREETS)} Street, {self.one(_TOWNS)}"

    def date(self) -> str:
        """A date in words."""
        return f"{self.rng.integers(1, 29)} {self.one(_MONTHS)} {self.rng.integers(1980, 2031)}"

    def code(self) -> str:
        """Letters and digits as on a ticket, without O and I, which look like 0 and 1 in many
        fonts.
        """
        letters = "".join(
            self.one("ABCDEFGHJKLMNPQRSTUVWXYZ") for _ in range(int(self.rng.integers(2, 4)))
        )
        return f"{letters}-{self.rng.integers(1000, 100000)}"

    def amount(self) -> str:
        """A price with two decimals."""
        return price(int(self.rng.integers(50, 30000)))

    def goods(self, count: int) -> list[str]:
        """Different things that a shop sells."""
        return self.some(_GOODS, count)

    def _thing(self) -> str:
        adjective = f"{self.one(_KINDS)} " if self.rng.random() < 0.5 else ""
        return f"the {adjective}{self.one(_THINGS)}"


def price(cents: int) -> str:
    """An amount with two decimals."""
    return f"{cents // 100}.{cents % 100:02d}"
