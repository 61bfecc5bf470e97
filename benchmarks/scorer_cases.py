"""Random questions and answers of every kind, in the forms that models give and the rules stumble
over; for `scorer_agreement.py`.
"""

from __future__ import annotations

import json

from hypothesis import strategies as st

from sailvit.evaluation.scoring.contractions import CONTRACTIONS
from sailvit.evaluation.scoring.ocr import CATEGORIES

LETTERS = "ABCDEFGHI"
TEXTS = [
    *("cat", "dog", "bird", "fish", "a red car", "Yes", "No", "1", "10", "100", "1.5", "3/4", "x"),
    *(
        "nan",
        "none",
        "all of the above",
        "A",
        "B and C",
        "Zürich",
        "北京",
        "İstanbul",
        "",
        "π",
        "A cat",
    ),
]
WORDS = [
    *("the", "answer", "is", "Answer", "The", "correct", "option", "Option", "because", "it", "I"),
    *("think", "yes", "no", "Yes", "No", "YES", "not", "maybe", "and", "or", "dog", "cat", "are"),
    *(
        "答案是",
        "选",
        "是的",
        "不是",
        "\uff21",
        "\\boxed{B}",
        "<answer>B</answer>",
        "none",
        "ten",
        "two",
    ),
    *("Sorry, I can't help with images of people yet.", "I can't process this file."),
    *("Failed to obtain answer via API.", "Cannot determine the answer", "Z", "yes,no", "no-one"),
    *(
        "answer is",
        "answer  is",
        "answer is **",
        "Answer is a",
        "1,000",
        "1.5",
        "3.14",
        "$5",
        "50%",
    ),
]
MARKS = [
    " ",
    " ",
    " ",
    ". ",
    ", ",
    ": ",
    "; ",
    "\n",
    "\n\n",
    "(",
    ")",
    "**",
    "!",
    "?",
    "-",
    "/",
    "'",
]
MARKS += [
    '"',
    "[",
    "]",
    "{",
    "}",
    "#",
    "_",
    ".",
    ",",
    "",
    "\t",
    "。",
    "\r",
    "$",
    "<",
    ">",
    "@",
    "`",
]
NUMBERS = st.one_of(
    st.integers(-20, 200).map(str),
    st.sampled_from(
        ["0", "-0", "14.0", "14 cm", "$1.45", "1,000", "60%", " 14 ", "\uff11\uff14", "1_000"]
    ),
    st.sampled_from(["57", "57%", "0.57", "1e3", "inf", "nan", "", "None", "2007", "2008", ".5"]),
    st.decimals(-100, 100, places=2, allow_nan=False).map(str),
)


def spoken(*more: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Answers of words, letters, marks and what is given."""
    piece = st.one_of(
        st.sampled_from(WORDS), st.sampled_from(MARKS), st.sampled_from(LETTERS), *more
    )
    bare = st.one_of(st.sampled_from(LETTERS), st.sampled_from([*TEXTS, *WORDS]), *more)
    shown = st.tuples(
        st.sampled_from(["", "(", "**", "Answer: ", "The answer is ", "\\boxed{", "It is "]),
        bare,
        st.sampled_from(["", ")", ".", "**", "}", ") dog", ".\n\nBecause it is so and so."]),
    ).map("".join)
    return st.one_of(
        st.lists(piece, max_size=12).map("".join),
        st.lists(piece, max_size=12).map(" ".join),
        shown,
        bare,
        st.text(max_size=12),
    )


OPTIONS = st.lists(st.sampled_from(TEXTS), min_size=2, max_size=6).map(
    lambda texts: dict(zip(LETTERS, texts, strict=False))
)
SHORT = st.one_of(
    NUMBERS,
    st.sampled_from([*TEXTS, *CONTRACTIONS, *CONTRACTIONS.values(), *WORDS]),
    st.lists(st.sampled_from([*WORDS, *MARKS, *CONTRACTIONS]), max_size=6).map(" ".join),
    st.text(max_size=10),
)


@st.composite
def _matching(draw: st.DrawFn) -> dict[str, object]:
    options = draw(OPTIONS)
    return {"answer": draw(spoken(st.sampled_from(list(options.values())))), "options": options}


@st.composite
def _short(draw: st.DrawFn) -> dict[str, object]:
    golds = draw(st.lists(SHORT, min_size=1, max_size=10))
    near = draw(st.sampled_from(golds))
    changed = st.sampled_from(
        [near, near.upper(), f" {near} ", f"{near}.", near[1:], f"{near}x", near]
    )
    number = _number(near)
    if number is not None:
        changed = st.one_of(
            changed,
            st.sampled_from([1.05, 0.95, 1.051, 0.96, 1.0499]).map(lambda f: repr(number * f)),
        )
    if draw(st.booleans()):
        golds = [near] * draw(st.integers(1, 4)) + golds[:6]
    cell = json.dumps(golds, ensure_ascii=False) if draw(st.booleans()) else near
    return {"answer": draw(st.one_of(changed, SHORT)), "golds": cell}


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


@st.composite
def _ocr(draw: st.DrawFn) -> dict[str, object]:
    golds = draw(st.lists(SHORT, min_size=1, max_size=3))
    near = draw(st.sampled_from(golds))
    around = st.tuples(SHORT, st.sampled_from([near, near.upper(), near.replace(" ", "\n")]), SHORT)
    answer = draw(st.one_of(around.map("".join), around.map(" ".join), SHORT))
    return {"answer": answer, "golds": repr(golds), "category": draw(st.sampled_from(CATEGORIES))}


@st.composite
def _mathvista(draw: st.DrawFn) -> dict[str, object]:
    choice = draw(st.booleans())
    kind = "text" if choice else draw(st.sampled_from(["integer", "float", "text", "list"]))
    choices = draw(st.lists(st.sampled_from([t for t in TEXTS if t]), min_size=2, max_size=5))
    number = {"integer": st.integers(-3, 30).map(str), "float": NUMBERS}.get(kind, SHORT)
    # A file never holds the word None: it is read as nothing.
    gold = draw(number.filter(lambda text: text != "None"))
    row = {
        **{"index": "1", "question": "q", "answer": gold, "answer_type": kind},
        **{"question_type": "multi_choice" if choice else "free_form", "choices": repr(choices)},
        "answer_option": draw(st.sampled_from(LETTERS[: len(choices)])),
    }
    said = (
        spoken(st.sampled_from(choices)) if choice else st.one_of(NUMBERS, st.just(gold), spoken())
    )
    replies = draw(st.lists(st.one_of(said, st.just(gold)), max_size=2))
    return {"row": row, "answer": draw(said), "replies": replies}


@st.composite
def _choices(draw: st.DrawFn, most: int) -> dict[str, object]:
    options = draw(OPTIONS)
    letters = list(options)
    count = draw(st.integers(1, most))
    golds = [draw(st.sampled_from(letters)) for _ in range(count)]
    said = spoken(st.sampled_from(list(options.values())))
    answers = [draw(st.one_of(st.just(gold), st.just(gold), said)) for gold in golds]
    replies = draw(
        st.one_of(st.just([]), st.lists(st.sampled_from(letters), min_size=1, max_size=1))
    )
    return {"options": options, "golds": golds, "answers": answers, "replies": replies}


@st.composite
def _mmmu(draw: st.DrawFn) -> dict[str, object]:
    case = draw(_choices(1))
    if draw(st.booleans()):
        gold = draw(
            st.one_of(
                # A file never holds these words: they are read as nothing.
                NUMBERS.filter(lambda text: text.strip() not in ("", "nan", "None")),
                st.sampled_from(["9", "['ten', '10']", "B"]),
            )
        )
        said = st.sampled_from([gold, f"19{gold}", "A", "Other Answers", f"It is {gold}."])
        case |= {"options": {}, "golds": [gold], "answers": [draw(st.one_of(said, spoken()))]}
    return case | {"replies": []}


CASES: dict[str, st.SearchStrategy[dict[str, object]]] = {
    "matching": _matching(),
    "mcq": _choices(1),
    "circular": _choices(4),
    "mmmu": _mmmu(),
    "yes-no": st.fixed_dictionaries(
        {"answer": spoken(st.sampled_from(["yes", "no", "Yes.", "No,"]))}
    ),
    "anls": _short(),
    "relaxed": _short(),
    "vqa": _short(),
    "exact": _short(),
    "ocrbench": _ocr(),
    "mathvista": _mathvista(),
    "mmvet": st.fixed_dictionaries(
        {"replies": st.lists(st.one_of(NUMBERS.filter(lambda t: t != "nan"), SHORT), max_size=5)}
    ).filter(lambda case: bool(case["replies"]) and "nan" not in " ".join(case["replies"]).lower()),
    "file": st.fixed_dictionaries(
        {
            "texts": st.lists(
                st.one_of(
                    NUMBERS, SHORT, st.sampled_from(["True", "FALSE", "007", "a\rb", "=1+1"])
                ),
                min_size=1,
                max_size=4,
            )
        }
    ),
}
"""A strategy of cases per kind; of `file` a case is a column of answers."""
