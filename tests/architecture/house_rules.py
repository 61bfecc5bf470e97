"""The house rules as functions: each takes a parsed module and yields the lines that break it, with what to do."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "sailvit"

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """One source file."""

    name: str
    """Path below the package, for instance `models/towers/tower.py`."""
    text: str
    """Its source."""

    @cached_property
    def tree(self) -> ast.Module:
        """Its syntax tree."""
        return ast.parse(self.text)

    @property
    def layer(self) -> str:
        """First folder, or the file's stem at the top of the package."""
        return self.name.split("/")[0].removesuffix(".py")

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """Every node of the tree; walked once, as each rule looks at all of them."""
        return list(ast.walk(self.tree))

    def functions(self) -> Iterator[Function]:
        """Every function, method and inner function."""
        return (node for node in self.nodes if isinstance(node, FUNCTIONS))

    def classes(self) -> Iterator[ast.ClassDef]:
        """Every class."""
        return (node for node in self.nodes if isinstance(node, ast.ClassDef))


Found = Iterator[tuple[int, str]]
Rule = Callable[[Module], Found]


@cache
def modules() -> list[Module]:
    """Every module of the package that holds code; read and parsed once for all rules."""
    paths = sorted(PACKAGE.rglob("*.py"))
    return [
        Module(path.relative_to(PACKAGE).as_posix(), path.read_text(encoding="utf-8"))
        for path in paths
    ]


def short_files(module: Module) -> Found:
    """Files have at most 350 lines."""
    lines = module.text.count("\n")
    if lines > 350:
        yield 1, f"{lines} lines; split it, 350 is the most"


def short_functions(module: Module) -> Found:
    """Functions have at most 50 lines."""
    for function in module.functions():
        lines = (function.end_lineno or 0) - function.lineno + 1
        if lines > 50:
            yield function.lineno, f"{function.name} has {lines} lines; split it, 50 is the most"


def simple_functions(module: Module) -> Found:
    """Functions branch at most 9 times; conditional expressions, comprehensions and boolean operators count."""
    branching = (ast.If, ast.For, ast.While, ast.ExceptHandler, ast.IfExp, ast.comprehension)
    for function in module.functions():
        total = 1
        for node in _own_nodes(function):
            total += isinstance(node, branching)
            total += len(node.values) - 1 if isinstance(node, ast.BoolOp) else 0
        if total > 10:
            yield (
                function.lineno,
                f"{function.name} has complexity {total}; split it, 10 is the most",
            )


def _own_nodes(function: Function) -> Iterator[ast.AST]:
    stack = list(ast.iter_child_nodes(function))
    while stack:
        node = stack.pop()
        if isinstance(node, (*FUNCTIONS, ast.ClassDef, ast.Lambda)):
            continue
        yield node
        stack += ast.iter_child_nodes(node)


def documented(module: Module) -> Found:
    """Modules, classes and functions without a leading underscore have a docstring."""
    if ast.get_docstring(module.tree) is None:
        yield 1, "the module has no docstring"
    for node in [*module.classes(), *module.functions()]:
        private = isinstance(node, FUNCTIONS) and node.name.startswith("_")
        # The docstring of an overloaded function stands in what does its work.
        typed = any(ast.unparse(decorator) == "overload" for decorator in node.decorator_list)
        if not private and not typed and ast.get_docstring(node) is None:
            yield node.lineno, f"{node.name} has no docstring; its first line says what it gives"


def documented_fields(module: Module) -> Found:
    """Fields of configs and dataclasses have a docstring under them."""
    for cls in module.classes():
        if not _holds_fields(cls):
            continue
        for field, after in zip(cls.body, [*cls.body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign) and not _is_text(after):
                yield (
                    field.lineno,
                    f"{cls.name}.{ast.unparse(field.target)} has no docstring under it",
                )


def _holds_fields(cls: ast.ClassDef) -> bool:
    bases = [ast.unparse(base) for base in cls.bases]
    marks = [ast.unparse(decorator) for decorator in cls.decorator_list]
    kinds = ("Config", "BaseModel", "NamedTuple", "Options")
    return any("dataclass" in mark for mark in marks) or any(base.endswith(kinds) for base in bases)


def _is_text(node: ast.stmt | None) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def annotated(module: Module) -> Found:
    """Every parameter and every return is annotated."""
    for function in module.functions():
        given = function.args
        every = [
            *given.posonlyargs,
            *given.args,
            *given.kwonlyargs,
            *filter(None, (given.vararg, given.kwarg)),
        ]
        for argument in every:
            if argument.annotation is None and argument.arg not in ("self", "cls"):
                yield function.lineno, f"{function.name}: parameter {argument.arg} has no type"
        if function.returns is None:
            yield function.lineno, f"{function.name} has no return type"


def shaped(module: Module) -> Found:
    """What a `forward` takes and gives is written as `float[B, T, D]`; so is a `__call__` that works on tensors."""
    for function in module.functions():
        signature = ast.unparse(function.args) + ast.unparse(function.returns or ast.Constant(None))
        on_tensors = re.search(r"Tensor|ndarray|\bBatch\b", signature)
        if function.name == "forward" or (function.name == "__call__" and on_tensors):
            note = re.search(
                r"\b(?:float|u?int\d*|bool)\[[^]]*\]", ast.get_docstring(function) or ""
            )
            if note is None:
                yield (
                    function.lineno,
                    f"{function.name} names no shape such as float[B, T, D] in its docstring",
                )


def few_positional(module: Module) -> Found:
    """More than five parameters are keyword-only; a signature that is a third party's says so beside its noqa."""
    lines = module.text.splitlines()
    for function in module.functions():
        positional = [
            a.arg
            for a in function.args.posonlyargs + function.args.args
            if a.arg not in ("self", "cls")
        ]
        foreign = module.layer == "cli" or "noqa: PLR0913 -" in lines[function.lineno - 1]
        if len(positional) > 5 and not foreign:
            yield (
                function.lineno,
                f"{function.name} takes {len(positional)} by position; put * before the sixth",
            )


def no_stage_names(module: Module) -> Found:
    """No code looks at a stage's name: what a stage does is in its values."""
    for node in module.nodes:
        sides = [node.left, *node.comparators] if isinstance(node, ast.Compare) else []
        sides += [node.subject] if isinstance(node, ast.Match) else []
        for side in sides:
            text = ast.unparse(side)
            if re.search(r"\bstage(?:\(.*\))?\.name$|\bstage_name$|\bstages\[.*\]\.name$", text):
                yield (
                    node.lineno,
                    f"{text} is compared; give the stage a value that says what is meant",
                )


def no_print(module: Module) -> Found:
    """Only the command line prints."""
    if module.layer == "cli":
        return
    for node in _calls(module, "print"):
        yield node.lineno, "print outside cli; return the text, or log it"


def no_broad_except(module: Module) -> Found:
    """Handlers name what they expect."""
    for node in module.nodes:
        if isinstance(node, ast.ExceptHandler):
            kinds = "" if node.type is None else ast.unparse(node.type)
            if not kinds or re.search(r"\b(?:Base)?Exception\b", kinds):
                yield node.lineno, "except takes everything; name the errors that are expected here"


def no_device_calls(module: Module) -> Found:
    """Devices are arguments: `.to(device)`, never `.cuda()`."""
    for node in module.nodes:
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "cuda"
        ):
            yield node.lineno, ".cuda() fixes the device; use .to(device)"


def no_pickle(module: Module) -> Found:
    """Nothing unpickles: weights travel as safetensors, states as safetensors and JSON."""
    for line, name in imports(module):
        if name.split(".")[0] in ("pickle", "cloudpickle", "dill", "joblib"):
            yield line, f"{name} runs code when it loads; use safetensors or JSON"
    for node in _calls(module, "torch.load"):
        yield node.lineno, "torch.load unpickles; use safetensors"


def no_global_randomness(module: Module) -> Found:
    """Random choices come from named generators."""
    for line, name in imports(module):
        if name == "random" or name.startswith("random."):
            yield line, "the random module is one global stream; use core.seeding.numpy_generator"
    for node in module.nodes:
        if isinstance(node, ast.Call) and re.match(r"np\.random\.[a-z]", ast.unparse(node.func)):
            yield (
                node.lineno,
                f"{ast.unparse(node.func)} draws from the global stream; use core.seeding.numpy_generator",
            )


def nothing_at_import(module: Module) -> Found:
    """Importing a module defines names and does nothing else; the command line registers its commands."""
    if module.layer in ("cli", "__main__"):
        return
    for node in module.tree.body:
        if isinstance(node, ast.For | ast.While | ast.With | ast.Try) or (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
        ):
            yield node.lineno, f"runs at import: {ast.unparse(node).splitlines()[0]}"


def telling_names(module: Module) -> Found:
    """Modules are named after what they hold."""
    for part in module.name.removesuffix(".py").split("/"):
        if {"utils", "util", "helpers", "helper", "common", "misc", "manager"} & set(
            part.split("_")
        ):
            yield 1, f"{part} says nothing about its content; name it after what it holds"


def nothing_left_open(module: Module) -> Found:
    """No note of unfinished work, and no code that says it is not there; abstract methods of a base class may."""
    for token in tokenize.generate_tokens(io.StringIO(module.text).readline):
        if token.type == tokenize.COMMENT and re.search(
            r"\b(?:TODO|FIXME|XXX|HACK)\b", token.string
        ):
            yield token.start[0], f"left open: {token.string}"


FILE_RULES: list[Rule] = [
    short_files,
    short_functions,
    simple_functions,
    documented,
    documented_fields,
    annotated,
    shaped,
    few_positional,
    no_stage_names,
    no_print,
    no_broad_except,
    no_device_calls,
    no_pickle,
    no_global_randomness,
    nothing_at_import,
    telling_names,
    nothing_left_open,
]


def imports(module: Module) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of everything imported, inside functions and under TYPE_CHECKING too."""
    package = ["sailvit", *module.name.removesuffix(".py").split("/")][:-1]
    for node in module.nodes:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            target = [*base, *(node.module.split(".") if node.module else [])]
            yield from ((node.lineno, ".".join([*target, alias.name])) for alias in node.names)


def _calls(module: Module, name: str) -> Iterator[ast.Call]:
    for node in module.nodes:
        if isinstance(node, ast.Call) and ast.unparse(node.func) == name:
            yield node
