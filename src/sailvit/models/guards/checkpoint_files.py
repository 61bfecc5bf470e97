"""What is wrong with the files of a checkpoint folder, found from the files alone and before
anything is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sailvit.core.errors import ModelError
from sailvit.core.recipe import Part

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_POINTER = b"version https://git-lfs"
_JSON = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
_WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack"}
_AUTO = {"tower": "AutoModel", "language": "AutoModelForCausalLM"}
_UNDONE = {
    "fp8": "FineGrainedFP8Config",
    "mxfp4": "Mxfp4Config",
    "compressed-tensors": "CompressedTensorsConfig",
}
"""Quantisation that transformers undoes while it loads, on any device, and the config that asks
for it."""
_UNDONE_LATER = ("bitsandbytes", "higgs")
"""Quantisation that it undoes after loading, with the method's package and in most cases a
GPU."""


def refuse_damaged(part: Part, folder: str) -> None:
    """Refuse a folder with damaged files; a hub id, and a folder without damage, pass.

    Raises:
        ModelError: the first thing that is wrong.
    """
    for problem in folder_problems(part, folder):
        raise ModelError(f"cannot load the {part} from the folder {folder}: {problem}")


def refuse_quantised(part: Part, config: dict[str, Any], source: str) -> None:
    """Refuse a hub id whose config says that its weights are quantised; of folders
    `refuse_damaged` refuses them.

    Raises:
        ModelError: the weights are quantised.
    """
    if not Path(source).is_dir() and (problem := quantised(part, config, source)):
        raise ModelError(f"cannot load the {part} {source!r}: {problem}")


def folder_problems(part: Part, source: str, *, bare: bool = False) -> Iterator[str]:
    """A sentence for each file that is missing, cut off or damaged in a local checkpoint folder.

    With `bare` a folder of config files alone will do, as a plan needs no more.
    """
    folder = Path(source)
    if not folder.is_dir():
        return
    # Weights that are there should be whole, also where a plan would do without them.
    bare = bare and not any(path.suffix in _WEIGHTS for path in folder.iterdir())
    # The first damaged file alone: what follows from it would be told as well.
    for name in _JSON:
        if (path := folder / name).is_file() and (problem := _json_problem(path)):
            yield problem
            return
    if not (folder / "config.json").is_file():
        yield f"it has no config.json; it holds {_listed(folder)}. Name the folder of a saved model"
        return
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if problem := quantised(part, config, source):
        yield problem
    if not bare:
        yield from _weight_problems(part, folder)


def weight_files(folder: Path) -> list[Path]:
    """The files of weights that a folder's index names, or its one file; empty without any."""
    if (folder / WHOLE).is_file():
        return [folder / WHOLE]
    if not (folder / INDEX).is_file():
        return []
    listed = json.loads((folder / INDEX).read_text(encoding="utf-8")).get("weight_map", {})
    return [folder / name for name in sorted(set(listed.values()))]


def quantised(part: Part, config: dict[str, Any], source: str = "FOLDER") -> str | None:
    """Why a quantised checkpoint is refused, and how it is undone; None when its weights are
    plain.
    """
    given = config.get("quantization_config")
    nested = [value for value in config.values() if isinstance(value, dict)]
    given = given or next(
        (n["quantization_config"] for n in nested if n.get("quantization_config")), None
    )
    if not isinstance(given, dict):
        return None
    method = given.get("quant_method") or (
        "bitsandbytes" if given.get("load_in_4bit") or given.get("load_in_8bit") else "unknown"
    )
    return (
        f"its weights are quantised ({method}), and such weights are neither trained nor run frozen"
        f" here: parts are held in fp32, and a saved {part} is a plain one. Name the checkpoint that"
        " it was quantised from (base_model on its model card), or undo the quantisation and save it"
        f"{_undoing(part, method, source)}"
    )


def _undoing(part: Part, method: str, source: str) -> str:
    """The command that makes plain weights of quantised ones, as the end of a sentence; where
    transformers has none, whose tools to use.
    """
    auto = _AUTO.get(part, "AutoModel")
    if method in _UNDONE:
        given = f"{source!r}, quantization_config=Q(dequantize=True)"
        return (
            f', once, with the package accelerate: python -c "from transformers import'
            f" {auto} as A, {_UNDONE[method]} as Q;"
            f" A.from_pretrained({given}).save_pretrained('plain')\", then copy tokenizer and"
            " preprocessor files beside it"
        )
    if method in _UNDONE_LATER:
        return (
            f', once and with the package of {method}: python -c "from'
            f" transformers import {auto} as A;"
            f" A.from_pretrained({source!r}).dequantize().save_pretrained('plain')\", then copy"
            " tokenizer and preprocessor files beside it"
        )
    return f" with the tools of {method}; transformers itself does not"


def _weight_problems(part: Part, folder: Path) -> Iterator[str]:
    if not any((folder / name).is_file() for name in (WHOLE, INDEX)):
        yield _without_safetensors(part, folder)
        return
    alone = (folder / WHOLE).is_file()
    if problem := None if alone else _json_problem(folder / INDEX):
        yield problem
        return
    paths = weight_files(folder)
    missing = [path.name for path in paths if not path.is_file()]
    if missing or not paths:
        yield (
            f"{len(missing)} of {len(paths)} weight files that {INDEX} lists are missing"
            f" ({', '.join(missing[:3])}); download them"
        )
        return
    yield from filter(None, map(safetensors_problem, paths))


def refuse_misfits(part: Part, source: str, expected: Mapping[str, Sequence[int]]) -> None:
    """Refuse a folder with a weight of another shape than expected under its name.

    Names that only one side has are ignored, as loading renames some of them.

    Raises:
        ModelError: the first weight that has another shape.
    """
    for path in sorted(Path(source).glob("model*.safetensors")):
        if safetensors_problem(path):
            continue
        for name, found in _shapes(path).items():
            if name in expected and list(expected[name]) != found:
                raise ModelError(
                    f"cannot load the {part} from the folder {source}: {path.name} holds {name} as"
                    f" {found}, and config.json makes it {list(expected[name])}; config and weights"
                    " are of different models: download both again"
                )


def _shapes(path: Path) -> dict[str, list[int]]:
    """The shapes of a whole file's weights, from its header alone."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return {name: held["shape"] for name, held in header.items() if name != "__metadata__"}


def safetensors_problem(path: Path) -> str | None:
    """What is wrong with a file of weights, by its header and size; None when it is whole."""
    try:
        return _header_problem(path)
    except OSError as error:
        return _unreadable(path, error)


def _header_problem(path: Path) -> str | None:
    # The format: the header's length in 8 bytes, the header as JSON, and the tensors without
    # gaps, so that the header tells the size of the file.
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(64)
        if start.startswith(_POINTER):
            return _pointer(path)
        length = int.from_bytes(start[:8], "little")
        if size < 8 or length > size - 8:
            return (
                f"{path.name} is cut off or no safetensors file ({size:,} bytes); download it again"
            )
        file.seek(8)
        try:
            header = json.loads(file.read(length))
            ends = [t["data_offsets"][1] for n, t in header.items() if n != "__metadata__"]
        except (ValueError, TypeError, LookupError, AttributeError):
            return f"{path.name} has a damaged header; download it again"
    expected = 8 + length + max(ends, default=0)
    if size == expected:
        return None
    return (
        f"{path.name} has {size:,} bytes where its header tells {expected:,}, so it is"
        f" {'cut off' if size < expected else 'damaged'}; download it again"
    )


def _without_safetensors(part: Part, folder: Path) -> str:
    pickled = sorted(path.name for path in folder.glob("*.bin") if "training" not in path.name)
    pickled += sorted(
        path.name for kind in ("*.pt", "*.pth", "*.ckpt") for path in folder.glob(kind)
    )
    if not pickled:
        return (
            f"it has no weights in safetensors ({WHOLE}, or its parts with {INDEX}); it holds"
            f" {_listed(folder)}"
        )
    auto = _AUTO.get(part, "AutoModel")
    return (
        f"its weights are pickled ({pickled[0]}), which can run code when read, and only safetensors"
        ' are read here. Convert it once, without running code from it: python -c "from'
        f" transformers import {auto} as A; A.from_pretrained({str(folder)!r}, weights_only=True)"
        ".save_pretrained('converted')\", then copy tokenizer and preprocessor files beside it"
    )


def _json_problem(path: Path) -> str | None:
    try:
        data = path.read_bytes()
    except OSError as error:
        return _unreadable(path, error)
    if data.startswith(_POINTER):
        return _pointer(path)
    try:
        value = json.loads(data)
    except ValueError as error:
        return f"{path.name} is not JSON ({error}); download it again"
    if not isinstance(value, dict):
        return f"{path.name} holds a {type(value).__name__}, not an object; download it again"
    return None


def _unreadable(path: Path, error: OSError) -> str:
    return f"{path.name} cannot be read ({error.strerror}); ask its owner, or change its mode"


def _pointer(path: Path) -> str:
    return f"{path.name} is a Git LFS pointer, not the file itself; run `git lfs pull` there"


def _listed(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    return (", ".join(names[:4]) + (", ..." if len(names) > 4 else "")) or "nothing"
