"""Which exports a model can reach, known from its configs alone; the gate has the last word."""

from __future__ import annotations

from sailvit.core.layout import VisualLayout
from sailvit.interop.export.hf import hf_problems
from sailvit.interop.export.native import NATIVES, problems
from sailvit.interop.export.sailvl import sailvl_problems
from sailvit.models.structure.mllm import MLLM


def reachable(mllm: MLLM, layout: VisualLayout) -> tuple[str, ...]:
    """The layouts that nothing is known to keep the model from; its weights may be missing."""
    whole: tuple[str, ...] = () if hf_problems(mllm) else ("hf",)
    if not sailvl_problems(mllm, layout):
        whole += ("sailvl",)
    fits = (name for name, native in NATIVES.items() if not problems(native, mllm, layout))
    return ("tower", *whole, *fits)
