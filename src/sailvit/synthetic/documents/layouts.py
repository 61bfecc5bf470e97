"""Kinds of pages: what is written where, and the questions about it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sailvit.synthetic.documents.sheets import Page, Sheet
from sailvit.synthetic.documents.vocabulary import Writer, price

Layout = Callable[[np.random.Generator, Writer, str], Page]
"""Makes a page in one font."""


def _sheet(
    rng: np.random.Generator, face: str, widths: tuple[int, int], shape: tuple[float, float]
) -> Sheet:
    """An empty page with a width between `widths` and a height of that times a number between
    `shape`.
    """
    width = int(rng.integers(widths[0], widths[1] + 1))
    height = int(width * rng.uniform(*shape))
    size = int(rng.integers(max(13, width // 45), max(16, width // 28) + 1))
    # Wide enough that text stays on the page when it is turned by two degrees.
    margin = 12 + round(max(width, height) * rng.uniform(0.03, 0.08))
    return Sheet(width, height, margin, face, size, round(float(rng.uniform(1.0, 1.4)), 2))


def paragraphs(rng: np.random.Generator, writer: Writer, face: str) -> Page:
    """Plain text in one column."""
    sheet = _sheet(rng, face, (420, 900), (0.6, 1.4))
    while sheet.fits():
        sheet.put(writer.paragraph())
        sheet.gap()
    return sheet.page(fields=[], numbered=True)


def columns(rng: np.random.Generator, writer: Writer, face: str) -> Page:
    """A title over two columns of text, of which the left one is read first."""
    sheet = _sheet(rng, face, (640, 1000), (0.7, 1.3))
    title = writer.heading()
    sheet.put(title, size=round(sheet.size * 1.6), align="centre")
    sheet.gap()
    top, gutter = sheet.y, 2 * sheet.size
    sheet.column = (sheet.column - gutter) // 2
    for left in (sheet.margin, sheet.margin + sheet.column + gutter):
        sheet.x, sheet.y = left, top
        while sheet.fits():
            sheet.put(writer.paragraph())
            sheet.gap()
    return sheet.page(
        fields=[("What is the title of the page?", title)],
        order="the left column before the right one",
    )


def article(rng: np.random.Generator, writer: Writer, face: str) -> Page:
    """A title, then headings with paragraphs."""
    sheet = _sheet(rng, face, (460, 900), (0.9, 1.5))
    title = writer.heading()
    sheet.put(title, size=round(sheet.size * 1.8), align="centre")
    while sheet.fits(round(sheet.size * 1.3)):
        sheet.gap()
        sheet.put(writer.heading(), size=round(sheet.size * 1.3))
        sheet.put(writer.paragraph())
    return sheet.page(fields=[("What is the title of the page?", title)], numbered=True)


def listing(rng: np.random.Generator, writer: Writer, face: str) -> Page:
    """A heading over a list of items, numbered or with dashes."""
    sheet = _sheet(rng, face, (420, 800), (0.6, 1.2))
    heading = writer.heading()
    sheet.put(heading, size=round(sheet.size * 1.5))
    numbered, items = bool(rng.random() < 0.5), list[str]()
    while sheet.fits() and len(items) < 12:
        sheet.gap(0.2)
        item = f"{writer.person()}, {writer.code()}"
        mark = f"{len(items) + 1}." if numbered else "-"
        if not sheet.put(item, mark=mark, indent=sheet.length("12. ")):
            break
        items.append(item)
    # No question about an item that was wrapped or cut at the page's end.
    whole = [item for item in items if any(row.endswith(f" {item}") for row in sheet.rows)]
    fields = [(f"What is item {items.index(item) + 1} of the list?", item) for item in whole]
    sheet.trim()
    return sheet.page(fields=[("What is the heading?", heading), *fields])


def table(rng: np.random.Generator, writer: Writer, face: str) -> Page:
    """A table of names and numbers."""
    sheet = _sheet(rng, face, (520, 900), (0.5, 0.9))
    title = writer.heading()
    sheet.put(title, size=round(sheet.size * 1.3))
    sheet.gap()
    heads = ["Name", *writer.some(["Code", "Amount", "Count", "Year"], int(rng.integers(2, 4)))]
    make = {"Code": writer.code, "Amount": writer.amount}
    # So small that about ten characters of the widest font fit into a column.
    sheet.size = min(sheet.size, sheet.column // len(heads) // 7)
    # Columns of equal width, whatever they hold, as tables in print have.
    lefts = [index * sheet.column // len(heads) for index in range(len(heads))]
    sheet.rule()
    sheet.cells(heads, lefts)
    sheet.rule()
    fields, names = [("What is the title of the page?", title)], list[str]()
    while sheet.fits() and len(names) < 14:
        name = writer.company()
        # A row is asked for by its name, so no two rows may share one.
        if name in names:
            continue
        names.append(name)
        numbers = {"Count": str(rng.integers(1, 1000)), "Year": str(rng.integers(1950, 2031))}
        row = [name, *(make[head]() if head in make else numbers[head] for head in heads[1:])]
        fields += [
            (f'What is the "{head}" of {name}?', cell)
            for head, cell in zip(heads[1:], row[1:], strict=True)
        ]
        sheet.cells(row, lefts)
    sheet.trim()
    return sheet.page(fields=fields, order="row by row, cells separated by |")


def receipt(rng: np.random.Generator, writer: Writer, face: str) -> Page:
    """A shop's receipt, whose total is the sum of its prices."""
    sheet = _sheet(rng, face, (340, 460), (1.3, 2.0))
    shop, date, number = writer.company(), writer.date(), writer.code()
    sheet.put(shop, size=round(sheet.size * 1.5), align="centre")
    sheet.put(writer.address(), align="centre")
    sheet.put(f"Date: {date}")
    sheet.put(f"Receipt: {number}")
    sheet.rule()
    # Three lines are left for the total and the rule above it.
    free = (sheet.height - sheet.margin - sheet.y) // sheet.step() - 3
    goods = writer.goods(int(rng.integers(2, max(3, min(free, 12)) + 1)))
    # In cents: a sum of floats could differ from the printed total in its last digit.
    prices = [int(cents) for cents in rng.integers(40, 3000, len(goods))]
    for item, cents in zip(goods, prices, strict=True):
        _priced(sheet, item, price(cents))
    sheet.rule()
    _priced(sheet, "Total", price(sum(prices)))
    fields = [("What is the total?", price(sum(prices))), ("What is the date?", date)]
    fields += [
        ("What is the number of the receipt?", number),
        ("What is the name of the shop?", shop),
    ]
    fields += [("How many items were bought?", str(len(goods)))]
    fields += [
        (f"What is the price of {item}?", price(cents))
        for item, cents in zip(goods, prices, strict=True)
    ]
    sheet.trim()
    return sheet.page(fields=fields, order="from top to bottom, a name and its price in one line")


def _priced(sheet: Sheet, name: str, amount: str) -> None:
    sheet.cells(
        [name, amount], [0, sheet.column - sheet.length(amount) - 2], text=f"{name} {amount}"
    )


def form(rng: np.random.Generator, writer: Writer, face: str) -> Page:
    """A form that is filled in."""
    sheet = _sheet(rng, face, (480, 800), (0.7, 1.2))
    sheet.put(f"{writer.company()} application form", size=round(sheet.size * 1.3), align="centre")
    sheet.gap()
    values = {
        "Name": writer.person(),
        "Address": writer.address(),
        "Date of birth": writer.date(),
        "Phone": f"0{rng.integers(10, 99)} {rng.integers(100000, 10000000)}",
        "Member number": writer.code(),
        "Employer": writer.company(),
        "Amount due": writer.amount(),
        "Start date": writer.date(),
    }
    fields = []
    for label in writer.some(list(values), int(rng.integers(3, len(values) + 1))):
        # Leave out a value that does not fit into one line, or for which no line is left.
        left = sheet.length(f"{label}: ")
        if not sheet.fits() or left + sheet.length(values[label]) > sheet.column:
            continue
        sheet.cells([f"{label}:", values[label]], [0, left], text=f"{label}: {values[label]}")
        foot = sheet.y - round(0.05 * sheet.step())
        sheet.rules.append((sheet.x + left, foot, sheet.x + sheet.column, foot))
        sheet.gap(0.4)
        fields.append((f'What is written under "{label}"?', values[label]))
    sheet.trim()
    return sheet.page(fields=fields)


def sign(rng: np.random.Generator, writer: Writer, face: str) -> Page:
    """A few large words."""
    sheet = _sheet(rng, face, (360, 720), (0.4, 0.8))
    sheet.size = max(20, sheet.width // int(rng.integers(11, 18)))
    texts = (
        f"{writer.company()} Street",
        f"Exit {rng.integers(1, 80)} to {writer.company()}",
        f"Platform {rng.integers(1, 25)}",
        f"Open from {rng.integers(6, 12)}:00 to {rng.integers(13, 23)}:00",
        f"Room {rng.integers(100, 900)}: {writer.person()}",
        f"No entry after {rng.integers(1, 13)}:30",
        f"{writer.company()} {writer.code()}",
    )
    text = writer.one(texts)
    sheet.y = max(sheet.margin, sheet.height // 2 - sheet.step())
    sheet.put(text, align="centre")
    written = " ".join(sheet.rows)
    return sheet.page(fields=[("What does the sign say?", written)])


LAYOUTS: dict[str, Layout] = {
    "paragraphs": paragraphs,
    "columns": columns,
    "article": article,
    "list": listing,
    "table": table,
    "receipt": receipt,
    "form": form,
    "sign": sign,
}
"""All kinds of pages, by name."""
