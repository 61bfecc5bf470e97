"""VLMEvalKit's own scorers, from an unpacked wheel of `ms-vlmeval`, without its models and its
dependencies on torch; for `scorer_agreement.py`.
"""

from __future__ import annotations

import importlib
import io
import logging
import sys
import types
from pathlib import Path
from typing import Any

import pandas as pd

METHODS = {
    "anls": ("anls", "DocVQA"),
    "relaxed": ("relaxed_accuracy", "ChartQA"),
    "vqa": ("vqa_score", "TextVQA"),
    "exact": ("accuracy", "OCRVQA"),
}
"""Our names of measures, each with theirs and a set that is scored by it."""


class CannedModel:
    """A judge of theirs that gives replies from a list, the last one again and again."""

    def __init__(self, replies: list[str]) -> None:
        self.replies, self.asked = replies, 0

    def generate(self, prompt: str, temperature: float = 0.0) -> str:
        """The next reply."""
        self.asked += 1
        if not self.replies:
            return "Failed to obtain answer via API."
        return self.replies[min(self.asked, len(self.replies)) - 1]

    def working(self) -> bool:
        """Whether it can be asked."""
        return True


class Reference:
    """Verdicts of the kit's functions on single answers, and of its classes on files."""

    def __init__(self, folder: Path) -> None:
        self.version = next(folder.glob("ms_vlmeval-*.dist-info")).name.removesuffix(".dist-info")
        sys.path.insert(0, str(folder))
        # Its packages import every model and server on import; modules are reached without.
        for name in ("vlmeval", "vlmeval.utils", "vlmeval.dataset", "vlmeval.dataset.utils"):
            module: Any = types.ModuleType(name)
            module.__path__ = [str(folder / name.replace(".", "/"))]
            sys.modules[name] = module
        self._loaded("vlmeval.utils.matching_util", "vlmeval.utils", "can_infer", "can_infer_lego")
        self._loaded("vlmeval.utils.mp_util", "vlmeval.utils", "track_progress_rich")
        helper: Any = sys.modules["vlmeval.dataset.utils"]
        helper.build_judge, helper.DEBUG_MESSAGE = (lambda **_: CannedModel([])), ""
        part = "vlmeval.dataset.utils"
        self.matching = sys.modules["vlmeval.utils.matching_util"]
        self.choices = importlib.import_module(f"{part}.multiple_choice")
        self.yes_no = importlib.import_module(f"{part}.yorn")
        self.short = importlib.import_module(f"{part}.vqa_eval")
        self.mathvista = importlib.import_module(f"{part}.mathvista")
        self.mmvet = importlib.import_module(f"{part}.mmvet")
        logging.disable(logging.CRITICAL)

    def _loaded(self, name: str, into: str, *members: str) -> None:
        module = importlib.import_module(name)
        for member in members:
            if hasattr(module, member):
                setattr(sys.modules[into], member, getattr(module, member))

    def dataset(self, module: str, name: str) -> Any:
        """A class of sets."""
        return getattr(importlib.import_module(f"vlmeval.dataset.{module}"), name)

    def verdict(self, kind: str, case: dict[str, Any]) -> Any:
        """Their verdict on a case, in JSON's types."""
        if kind == "matching":
            return self.matching.can_infer(case["answer"], dict(case["options"])) or None
        if kind == "yes-no":
            said = self.yes_no.YOrN_Extraction(case["answer"])
            return None if said == "Unknown" else said
        if kind in METHODS:
            method, name = METHODS[kind]
            line = {"answer": case["golds"], "prediction": case["answer"]}
            (hit,) = self.short.hit_calculate([self.short.process_line(line, method)], name)
            return float(hit)
        if kind == "mathvista":
            line = {**case["row"], "prediction": case["answer"]}
            found = self.mathvista.MathVista_auxeval(CannedModel(case["replies"]), line)
            res = float("nan") if found["res"] == "" else found["res"]
            return bool(self.mathvista.post_check({**line, "res": res}))
        if kind == "mmvet":
            line = {"question": "q", "answer": "a", "prediction": "x"}
            return float(self.mmvet.MMVet_auxeval(CannedModel(case["replies"]), line)["score"])
        if kind == "file":
            return self._file(case["texts"])
        return self._ocr(case) if kind == "ocrbench" else self._choice(kind, case)

    def _file(self, texts: list[str]) -> list[str]:
        file = io.BytesIO()
        frame = pd.DataFrame({"prediction": texts, "index": range(len(texts))})
        frame.to_excel(file, index=False, engine="xlsxwriter")
        file.seek(0)
        return [str(value) for value in pd.read_excel(file)["prediction"]]

    def _ocr(self, case: dict[str, Any]) -> bool:
        module = importlib.import_module("vlmeval.dataset.image_vqa")
        line = {**case, "prediction": case["answer"], "answer": case["golds"]}
        # The class scores files; it is handed one row and writes nothing.
        kept = module.load, module.dump, module.tqdm
        module.load, module.dump = (lambda _: pd.DataFrame([line])), (lambda *_: None)
        module.tqdm = lambda items: items
        try:
            return bool(module.OCRBench.evaluate("x_OCRBench.xlsx")["Final Score"])
        finally:
            module.load, module.dump, module.tqdm = kept

    def _choice(self, kind: str, case: dict[str, Any]) -> float:
        rows = [
            {"index": 1, "question": "q", "prediction": answer, "answer": gold, "GT": gold}
            | {letter: case["options"].get(letter) for letter in "ABCDEFGHI"}
            for gold, answer in zip(case["golds"], case["answers"], strict=True)
        ]
        frame = pd.DataFrame(rows)
        model = CannedModel(case["replies"]) if case["replies"] else None
        if kind == "circular":
            found = self.choices.prefetch_circular_group(frame)
            if found or model is None:
                return float(found["hit"]) if found else 0.0
            return float(self.choices.eval_circular_group(model, frame)["hit"])
        if kind == "mmmu":
            frame = self.choices.MMMU_preproc(frame)
            gold = case["golds"][0]
            frame["GT"] = [gold if gold in list("ABCDEFGHIJKLMNOPQRSTUVWXYZ") else "A"]
        return float(self.choices.eval_vanilla(model, frame.iloc[0])["hit"])
