"""Every rule finds what it is there for, and lets pass what is right."""

from __future__ import annotations

import house_rules as house
import pytest
from copies import copies
from house_rules import FILE_RULES, Module, Rule
from layers import folder_cycles, layer_breaks, place_breaks, unplaced
from test_house_rules import EVERY_RULE, FOREIGN, backward_calls, code_lines, readme_faults

FIELDS = '@dataclass\nclass A:\n    """A."""\n\n    b: int\n    """B."""\n    c: int\n'
TENSORS = "self, x: torch.Tensor) -> torch.Tensor:\n"

PLANTED: list[tuple[Rule, str, str, int]] = [
    (house.short_files, "core/a.py", "x = 1\n" * 351, 1),
    (house.short_functions, "core/a.py", "def f():\n" + "    x = 1\n" * 50, 1),
    (house.simple_functions, "core/a.py", "def f(x):\n" + "    if x and x:\n        pass\n" * 5, 1),
    (house.documented, "core/a.py", "x = 1\n", 1),
    (house.documented, "core/a.py", '"""M."""\nclass A:\n    pass\n', 2),
    (
        house.documented,
        "core/a.py",
        '"""M."""\ndef f():\n    """F."""\n    def g():\n        pass\n',
        4,
    ),
    (house.documented_fields, "core/a.py", FIELDS, 7),
    (house.documented_fields, "core/a.py", 'class A(Config):\n    """A."""\n    b: int = 1\n', 3),
    (house.annotated, "core/a.py", "def f(a) -> None:\n    pass\n", 1),
    (house.annotated, "core/a.py", "def f(*a: int, **b) -> None:\n    pass\n", 1),
    (house.annotated, "core/a.py", "def f(a: int):\n    pass\n", 1),
    (house.shaped, "models/a.py", 'def forward(self):\n    """Features of tiles."""\n', 1),
    (house.shaped, "models/a.py", f'def __call__({TENSORS}    """Features."""\n', 1),
    (house.few_positional, "core/a.py", "def f(a, b, c, d, e, f):\n    pass\n", 1),
    (house.no_stage_names, "training/a.py", 'if stage.name == "coarse":\n    pass\n', 1),
    (house.no_stage_names, "training/a.py", 'if job.stage.name in ("fine",):\n    pass\n', 1),
    (house.no_stage_names, "training/a.py", 'x = "a" != recipe.stages[0].name\n', 1),
    (
        house.no_stage_names,
        "training/a.py",
        'match stage.name:\n    case "fine":\n        pass\n',
        1,
    ),
    (house.no_print, "models/a.py", "def f():\n    print(1)\n", 2),
    (house.no_broad_except, "core/a.py", "try:\n    pass\nexcept Exception:\n    pass\n", 3),
    (house.no_broad_except, "core/a.py", "try:\n    pass\nexcept:\n    pass\n", 3),
    (
        house.no_broad_except,
        "core/a.py",
        "try:\n    pass\nexcept (OSError, BaseException):\n    pass\n",
        3,
    ),
    (house.no_device_calls, "models/a.py", "x.cuda()\n", 1),
    (house.no_pickle, "core/a.py", "def f():\n    import pickle\n", 2),
    (house.no_pickle, "core/a.py", "torch.load(path)\n", 1),
    (house.no_global_randomness, "data/a.py", "import random\n", 1),
    (house.no_global_randomness, "data/a.py", "x = np.random.rand(3)\n", 1),
    (house.nothing_at_import, "core/a.py", "register(1)\n", 1),
    (house.nothing_at_import, "core/a.py", "for x in y:\n    z = 1\n", 1),
    (house.telling_names, "core/text_utils.py", "", 1),
    (house.telling_names, "helpers/a.py", "", 1),
    (house.nothing_left_open, "core/a.py", "x = 1  # TODO: more\n", 1),
    (layer_breaks, "core/a.py", "from sailvit.models import tower\n", 1),
    (
        layer_breaks,
        "models/a.py",
        "def f():\n    from sailvit.data.processing.images import load\n",
        2,
    ),
    (layer_breaks, "data/a.py", "if TYPE_CHECKING:\n    import sailvit.models.towers.tower\n", 2),
    (layer_breaks, "report/a.py", "from ..training import loop\n", 1),
    (layer_breaks, "distributed/a.py", "from sailvit import checkpoint\n", 1),
    (place_breaks, "models/a.py", "from PIL import Image\n", 1),
    (place_breaks, "training/a.py", "def f():\n    import transformers\n", 2),
    (place_breaks, "data/rows/images.py", "from transformers import AutoTokenizer\n", 1),
    (place_breaks, "evaluation/a.py", "import matplotlib.pyplot as plt\n", 1),
    (unplaced, "extras/a.py", "", 1),
]

RIGHT: list[tuple[Rule, str, str]] = [
    (house.short_functions, "core/a.py", "def f():\n" + "    x = 1\n" * 49),
    (house.documented, "core/a.py", '"""M."""\ndef _f():\n    pass\n'),
    (house.documented, "core/a.py", '"""M."""\n@overload\ndef f(a: int) -> int: ...\n'),
    (house.documented_fields, "core/a.py", FIELDS + '    """C."""\n'),
    (house.shaped, "models/a.py", 'def forward(self):\n    """Features float[I, P, D]."""\n'),
    (house.shaped, "data/a.py", 'def __call__(self, name: str) -> str:\n    """A name."""\n'),
    (house.few_positional, "core/a.py", "def f(self, a, b, c, d, e, *, f):\n    pass\n"),
    (house.no_stage_names, "training/a.py", 'print(stage.name)\nx = field.name == "a"\n'),
    (house.no_print, "cli/a.py", "print(1)\n"),
    (house.no_broad_except, "core/a.py", "try:\n    pass\nexcept OSError:\n    pass\n"),
    (house.no_global_randomness, "data/a.py", "x = np.random.Generator(np.random.Philox(key=1))\n"),
    (house.nothing_at_import, "core/a.py", '"""M."""\nimport os\nX = f(1)\n'),
    (
        layer_breaks,
        "training/a.py",
        "from sailvit.models import tower\nfrom sailvit.core.batch import Batch\n",
    ),
    (layer_breaks, "data/sources/a.py", "from . import llava\nfrom ..images import load\n"),
    (place_breaks, "models/loading/world_tokenizer.py", "import transformers\n"),
]


@pytest.mark.parametrize(
    ("rule", "name", "text", "line"), PLANTED, ids=lambda value: getattr(value, "__name__", "")
)
def test_a_planted_fault_is_found(rule: Rule, name: str, text: str, line: int):
    assert [number for number, _ in rule(Module(name, text))] == [line]


@pytest.mark.parametrize(
    ("rule", "name", "text"), RIGHT, ids=lambda value: getattr(value, "__name__", "")
)
def test_what_is_right_passes(rule: Rule, name: str, text: str):
    assert list(rule(Module(name, text))) == []


def test_every_rule_has_a_planted_fault():
    assert {rule for rule, *_ in PLANTED} == set(EVERY_RULE)
    assert set(FILE_RULES) <= set(EVERY_RULE)


LOW = Module("core/low/a.py", "import os\n")
LAZY = Module("core/a.py", "def f():\n    from sailvit.core.low.a import x\n")


@pytest.mark.parametrize(
    ("given", "places"),
    [
        ([LAZY, LOW], []),
        (
            [LAZY, Module("core/low/a.py", "from sailvit.core.a import f\n")],
            ["a.py:2", "low/a.py:1"],
        ),
        (
            [
                Module("core/one/a.py", "from sailvit.core.two.a import x\n"),
                Module("core/two/a.py", "if TYPE_CHECKING:\n    from ..three.deep import a\n"),
                Module("core/three/deep/a.py", "import sailvit.core.one.a\n"),
                Module("core/three/b.py", "from sailvit.core.three.deep import a\n"),
            ],
            ["one/a.py:1", "two/a.py:2", "three/deep/a.py:1"],
        ),
    ],
    ids=["down", "parent and child", "three in a circle"],
)
def test_folders_that_import_each_other_are_found(given: list[Module], places: list[str]):
    found = [text.split(": ")[0] for text in folder_cycles(given)]
    assert found == [f"src/sailvit/core/{place}" for place in places]


COPY = "\n\n".join(f"    x = f(x, {number})  # {number}" for number in range(7)) + "\n"


@pytest.mark.parametrize(
    ("one", "two", "places"),
    [
        (f"def f(x):\n{COPY}", f"class A:\n  def g(self, x):\n{COPY}", ["a.py:2-14 and b.py:3-15"]),
        (
            f"def f(x):\n{COPY}    y = 1\n",
            f"def g(x):\n{COPY}    y = 1\n",
            ["a.py:2-15 and b.py:2-15"],
        ),
        (f"def f(x):\n{COPY}\n{COPY}", "", ["a.py:2-14 and a.py:16-28"]),
        ("import a\n" * 12, "import a\n" * 12, []),
        (f'"""A{COPY}"""\n', f'"""A{COPY}"""\n', []),
        ("x = 1\ny = 2\n" * 5, "z = 1\n", []),
    ],
)
def test_copies_are_found(one: str, two: str, places: list[str]):
    assert copies([Module("a.py", one), Module("b.py", two)]) == places


def test_backward_calls_are_counted():
    two = Module(
        "training/a.py", "loss.backward()\n(a + b).backward(retain_graph=True)\nbackward = 1\n"
    )
    assert len(backward_calls([two])) == 2


def test_code_lines_leave_out_docstrings():
    source = 'def f(x):\n    """One.\n\n    Two."""\n    # Three.\n\n    if x:\n        y = 1\n    return y\n'
    assert code_lines(source) == {"f": 4}


def test_readme_faults_are_found():
    good = "# Name\n\n```\nmake demo\n```\n"
    assert readme_faults(good) == []
    assert len(readme_faults("line\n" * 25 + good)) == 1
    assert len(readme_faults(good + "line\n" * 150)) == 1
    assert len(readme_faults("line\n" * 200)) == 2


@pytest.mark.parametrize(
    ("text", "foreign"),
    [("see /work/main", True), ("issue 2", True), ("a training session", False)],
)
def test_workplace_words(text: str, foreign: bool):
    assert bool(FOREIGN.search(text)) == foreign
