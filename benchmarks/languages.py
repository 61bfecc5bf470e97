"""What every family of causal languages can do: docs/languages.md.

python benchmarks/languages.py [--keep FILE] [--all | FAMILY ...]

--all: every family that transformers knows. --keep: what is found is noted in FILE, and taken from
there when the command runs again; a cell is tried anew once it is deleted there. Families that are
named are printed, and nothing is written.
"""

from __future__ import annotations

import json
import logging
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parent.parent
_TESTS = ("", "data", "models", "interop", "interop/export")
sys.path[:0] = [str(ROOT / "tests" / path) for path in _TESTS]

import language_cells  # noqa: E402 - needs the path
from tiny_languages import language_of, model_of, worst_errors  # noqa: E402
from transformers import PreTrainedModel  # noqa: E402
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES  # noqa: E402

from sailvit.core.errors import SailvitError  # noqa: E402
from sailvit.models.guards.errors import FOREIGN, short_reason  # noqa: E402
from sailvit.models.loading.quiet import quiet_libraries  # noqa: E402

PAGE = ROOT / "docs" / "languages.md"
SECONDS = 900
CELLS = {"way", "stages", *language_cells.COLUMNS, *language_cells.LAYOUTS}
"""What a family that is finished has."""
COLUMNS = (
    *("family", "way", "logits", "gradients", "load", "recompute", "compile", "shard", "stages"),
    *("reload", "export"),
)
Row = dict[str, str]
"""What was found of a family, by column; a cell that does not hold begins with `NO`."""
NO = "no: "
HEAD = """# Languages

How samples of a pack are kept apart is proved on every model that is built
([training.md](training.md#packing)). This table is what the proof finds on tiny models with random
weights, on the CPU, with transformers {version}, and how far logits and gradients of a pack are then
from those of one sample at a time in fp32, relative to the largest.
Made by `python benchmarks/languages.py`; its columns are the tests in
`tests/models/languages/test_language_table.py`, which runs some families always and all with the
long tests.

- **load**: a saved folder gives the same weights; *tied*: embeddings and head are one matrix.
- **recompute**, **compile** (captured by torch's compiler, backend aot_eager_decomp_partition), **shard** (FSDP2 on one
  process): worst relative difference of loss and gradients to the plain language, at most 1e-4.
- **stages**: connector, tower too, everything, on tiny data; the run proves each while it trains,
  and the saved languages of the first two stages equal the source bit by bit.
- **reload**: weights and scores of the last stage's folder, loaded by AutoModelForCausalLM, bit by bit.
- **export**: layouts of `sailvit export` that went through their gate; `hf` and `llava` were tried,
  and the other layouts of transformers' classes hold a language as `llava` does.

"-": not tried yet; `--keep FILE` goes on where a run was stopped.

"""


def row(family: str, folder: Path, known: Row) -> Row:
    """What is found of a family; cells of `known` are taken as they are."""
    found: Row = dict(known)
    if "way" not in found:
        found |= _packing(family)
    if found["way"].startswith(NO):
        return found
    place = language_cells.Place(folder, family)
    # It writes the folder that all others read.
    found["load"] = _tried(lambda: language_cells.load(place))
    for column, cell in language_cells.COLUMNS.items():
        if column not in found:
            found[column] = _tried(lambda cell=cell: cell(place))
    if not {"stages", "reload"} <= found.keys():
        trained: list[PreTrainedModel] = []
        found["stages"] = _tried(lambda: trained.append(language_cells.stages(place)) or "yes")
        if trained:
            found["reload"] = _tried(lambda: language_cells.reload(place, trained[0]))
    for layout in language_cells.LAYOUTS:
        if layout not in found:
            found[layout] = _tried(lambda layout=layout: language_cells.export(place, layout))
    return found


def _packing(family: str) -> Row:
    try:
        model = model_of(language_of(family))
        logits, gradients = worst_errors(model)
    except (*FOREIGN, SailvitError) as error:
        return {"way": NO + _reason(error)}
    found = {"way": model.chosen.way.kind, "logits": f"{logits:.0e}"}
    found["gradients"] = f"{gradients:.0e}"
    return found | ({"why": model.chosen.findings[0]} if model.chosen.findings else {})


def _tried(cell: Callable[[], str]) -> str:
    try:
        return cell()
    except (*FOREIGN, SailvitError) as error:
        return NO + _reason(error)


def _reason(error: BaseException) -> str:
    text = str(error) if isinstance(error, SailvitError) else short_reason(error)
    return " ".join(text.removeprefix("AssertionError: ").split())


class Notes:
    """The reasons behind the table's cells, each written once."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def mark(self, text: str) -> str:
        """The number of a reason, as it stands in a cell."""
        # What differs between families alone: names of classes, and how much a sample moved.
        alike = re.sub(
            r"\b\w+(?:ForCausalLM|LMHeadModel|Attention|Output|Model)\b", "the class", text
        )
        alike = re.sub(r" \((?:a change|by)[^)]*\)", "", alike.replace("|", "/"))
        alike = re.sub(r"\d\.\de[-+]\d\d", "...", alike)
        return f"({self._numbers.setdefault(alike, len(self._numbers) + 1)})"

    def __iter__(self) -> Iterator[str]:
        yield from (f"{number}. {text}" for text, number in self._numbers.items())


def line(found: Row, notes: Notes) -> str:
    """The table's line of a family."""
    # Of a refused family nothing else is tried; of others it may not have been yet.
    missing = "" if found["way"].startswith(NO) else "-"
    shown = {column: found.get(column, missing) for column in COLUMNS}
    if "why" in found:
        shown["way"] += f" {notes.mark(found['why'])}"
    for column, cell in shown.items():
        if cell.startswith(NO):
            shown[column] = f"no {notes.mark(cell.removeprefix(NO))}"
    tried = {layout: found[layout] for layout in language_cells.LAYOUTS if layout in found}
    held = [layout for layout, cell in tried.items() if not cell.startswith(NO)]
    # What keeps a language from every layout is said once.
    named = "as {}: {}" if held else "{1}"
    marks = dict.fromkeys(
        notes.mark(named.format(layout, cell.removeprefix(NO)))
        for layout, cell in tried.items()
        if cell.startswith(NO)
    )
    shown["export"] = " ".join([", ".join(held) or ("no" if tried else missing), *marks])
    return "| " + " | ".join(shown.values()) + " |"


def page(rows: list[Row]) -> str:
    """The whole page."""
    import transformers

    notes = Notes()
    lines = [line(found, notes) for found in rows]
    head = HEAD.format(version=transformers.__version__)
    table = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|", *lines]
    return head + "\n".join([*table, "", *notes]) + "\n"


@contextmanager
def _at_most(seconds: int) -> Iterator[None]:
    def late(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise TimeoutError(f"took more than {seconds} s")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def _found(family: str, keep: Path | None) -> Row:
    known: list[Row] = []
    if keep is not None and keep.is_file():
        known = [json.loads(kept) for kept in keep.read_text(encoding="utf-8").splitlines()]
    found = next((each for each in known if each["family"] == family), {"family": family})
    others = [each for each in known if each["family"] != family]
    try:
        if not found.get("way", "").startswith(NO) and CELLS - found.keys():
            with _at_most(SECONDS), tempfile.TemporaryDirectory() as folder:
                found = row(family, Path(folder), found)
    except (*FOREIGN, SailvitError, NotImplementedError) as error:
        found = {"family": family, "way": NO + _reason(error)}
    if keep is not None:
        lines = [json.dumps(each) + "\n" for each in [*others, found]]
        keep.write_text("".join(lines), encoding="utf-8")
    return found


def main() -> None:
    """Write the page, or print the lines of the families that are named."""
    quiet_libraries()
    logging.disable(logging.WARNING)
    asked, keep = sys.argv[1:], None
    if asked[:1] == ["--keep"]:
        keep, asked = Path(asked[1]), asked[2:]
    everything = asked == ["--all"]
    rows = []
    for family in (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if everything else asked or language_cells.FAMILIES
    ):
        rows.append(_found(family, keep))
        print(json.dumps(rows[-1]), flush=True)
    if everything or not asked:
        PAGE.write_text(page(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
