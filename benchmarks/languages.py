"""How every family of causal languages reads packs, and its worst errors: docs/languages.md.

python benchmarks/languages.py [--all | FAMILY ...]     (--all: every one that transformers knows)
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "models"))

from tiny_languages import language_of, model_of, worst_errors  # noqa: E402 - needs the path
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES  # noqa: E402

from sailvit.core.errors import ModelError  # noqa: E402
from sailvit.models.guards.errors import FOREIGN  # noqa: E402
from sailvit.models.loading.quiet import quiet_libraries  # noqa: E402

PAGE = ROOT / "docs" / "languages.md"
SECONDS = 180
_NAMES = """
llama qwen2 qwen3 qwen3_moe qwen3_5_text qwen3_next lfm2 gemma gemma2 gemma3_text gpt_oss
deepseek_v2 deepseek_v3 phi3 phi olmo olmo2 olmo3 olmoe olmo_hybrid mistral mixtral llama4_text
falcon bloom mpt gpt2 gptj gpt_neo gpt_neox opt codegen stablelm nemotron persimmon cohere cohere2
glm glm4 granite granitemoe granitemoehybrid bamba falcon_h1 jamba zamba2 mamba mamba2 rwkv xlstm
recurrent_gemma starcoder2 ernie4_5 smollm3 hunyuan_v1_dense exaone4 minimax modernbert-decoder
deepseek_v32 deepseek_v4 axk1 axk2 glm_moe_dsa glm4_moe_lite longcat_flash minicpm3 youtu
bailing_hybrid kimi_linear ministral3 moshi trocr whisper gemma3n_text gemma4_text
afmoe apertus arcee aria_text biogpt bitnet cohere2_moe ctrl cwm dbrx diffllama doge dots1
ernie4_5_moe exaone_moe falcon_mamba flex_olmo gemma4_unified_text glm4_moe gpt_bigcode
gpt_neox_japanese granitemoeshared helium hunyuan_v1_moe internlm3 jais2 jetmoe lfm2_moe minimax_m2
ministral nanochat nemotron_h openai-gpt phimoe qwen2_moe qwen3_5_moe_text seed_oss
solar_open vaultgemma xglm zamba zaya
"""
FAMILIES = _NAMES.split()
"""Those of the table."""
HEAD = """# Languages

How samples of a pack are kept apart is proved on every model that is built
([training.md](training.md#packing)). This table is what the proof finds on tiny models with random
weights, on the CPU, with transformers {version}, and how far logits and gradients of a pack are then
from those of one sample at a time in fp32, relative to the largest.
Made by `python benchmarks/languages.py`.

| family | way | logits | gradients | why not the ways before |
|---|---|---|---|---|
"""


def row(family: str) -> str:
    """The table's line of a family."""
    try:
        language = language_of(family)
    except FOREIGN as error:
        return f"| {family} | no tiny model | | | {_short(error)} |"
    try:
        model = model_of(language)
        logits, gradients = worst_errors(model)
    except (*FOREIGN, ModelError) as error:
        kind = "refused" if isinstance(error, ModelError) else "fails"
        return f"| {family} | {kind} | | | {_short(error)} |"
    why = model.chosen.findings[0] if model.chosen.findings else ""
    return (
        f"| {family} | {model.chosen.way.kind} | {logits:.0e} | {gradients:.0e} | {_short(why)} |"
    )


def _short(text: object) -> str:
    line = " ".join(str(text).split()).replace("|", "/")
    return line if len(line) <= 160 else line[:157] + "..."


def _late(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise TimeoutError(f"took more than {SECONDS} s")


def main() -> None:
    """Write the page, or print the lines of the families that are named."""
    import transformers

    quiet_libraries()
    signal.signal(signal.SIGALRM, _late)
    asked = sys.argv[1:]
    everything = asked == ["--all"]
    lines = []
    for family in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if everything else asked or FAMILIES:
        signal.alarm(SECONDS)
        try:
            lines.append(row(family))
        except (TimeoutError, OSError, NotImplementedError) as error:
            lines.append(f"| {family} | no tiny model | | | {_short(error)} |")
        signal.alarm(0)
        print(lines[-1], flush=True)
    if everything or not asked:
        head = HEAD.format(version=transformers.__version__)
        PAGE.write_text(head + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
