"""The documents: links and named files exist, commands parse, and cluster examples run as far as torchrun."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml
from torch.distributed.run import get_args_parser

from sailvit.cli.app import app
from sailvit.recipes.loader import load_recipe

ROOT = Path(__file__).parent.parent
DOCS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)

ARGUMENTS = "import json, sys; print(json.dumps(sys.argv[1:]))"
"""What stands in for torchrun: it says how it was called."""


def blocks(path: Path, *kinds: str) -> list[str]:
    return [text for kind, text in FENCE.findall(path.read_text(encoding="utf-8")) if kind in kinds]


def block(path: str, kind: str, mark: str) -> str:
    (found,) = [text for text in blocks(ROOT / path, kind) if mark in text]
    return found


def commands(text: str) -> list[str]:
    """Lines that begin with one of our commands, continuation lines joined and comments dropped."""
    joined = text.replace("\\\n", " ")
    lines = [line.split("  #")[0].split(" # ")[0].strip() for line in joined.splitlines()]
    return [
        line
        for line in lines
        if re.match(r"(\.venv/bin/)?(sailvit|torchrun) ", line) and "..." not in line
    ]


def parsed(arguments: list[str]) -> dict[str, object]:
    """What `sailvit` makes of its arguments, without running anything."""
    command = typer.main.get_command(app)
    context = typer.Context(command)
    while isinstance(getattr(command, "commands", None), dict):
        name, *arguments = arguments
        context = typer.Context(command, parent=context)
        command = command.commands[name]
    return command.make_context(command.name, arguments, parent=context).params


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path):
    targets = re.findall(r"\]\(([^)#\s]+)", path.read_text(encoding="utf-8"))
    local = [target for target in targets if not target.startswith(("http:", "https:"))]
    assert [target for target in local if not (path.parent / target).exists()] == []


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_files_that_are_named_exist(path: Path):
    named = re.findall(
        r"`(?:python )?((?:tests|benchmarks|docs|src)/[\w./-]+)", path.read_text(encoding="utf-8")
    )
    assert [name for name in named if not (ROOT / name.rstrip(".")).exists()] == []


LINES = [
    (path, line) for path in DOCS for text in blocks(path, "", "bash") for line in commands(text)
]


@pytest.mark.parametrize(("path", "line"), LINES, ids=[line[:60] for _, line in LINES])
def test_commands_parse(path: Path, line: str):
    del path
    words = shlex.split(line)
    if words[0] == "torchrun":
        given = get_args_parser().parse_args(words[1:])
        assert given.module
        assert given.training_script == "sailvit"
        words = ["sailvit", *given.training_script_args]
    if "SRC" in words or any(word.startswith(("[", "(")) for word in words):
        pytest.skip("a form, not a command")
    values = parsed(words[1:])
    for name in [
        name
        for name in values.get("overrides") or ()
        if name.startswith(("parallel", "resume", "workers"))
    ]:
        load_recipe("demo", [name])


def called(script: str, tmp_path: Path, **environment: str) -> list[str]:
    """How a shell script calls torchrun, with stand-ins for what only a cluster has."""
    stand_ins = {
        "srun": 'exec "$@"',
        "scontrol": "printf 'node-a\\nnode-b\\n'",
        "torchrun": f'exec {shlex.quote(sys.executable)} -c {shlex.quote(ARGUMENTS)} "$@"',
    }
    for name, body in stand_ins.items():
        file = tmp_path / name
        file.write_text(f"#!/bin/bash\n{body}\n")
        file.chmod(0o755)
    paths = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env={**environment, "PATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_slurm_example_starts_torchrun_on_its_nodes(tmp_path: Path):
    script = block("docs/training.md", "bash", "#SBATCH")
    options = re.findall(
        r"--([\w-]+)", "".join(re.findall(r"^#SBATCH (.*)$", script, re.MULTILINE))
    )
    assert options == ["nodes", "ntasks-per-node", "gpus-per-node", "requeue", "signal"]
    given = get_args_parser().parse_args(
        called(script, tmp_path, SLURM_NNODES="2", SLURM_JOB_NODELIST="node-[a-b]")
    )
    assert (given.nnodes, given.nproc_per_node, given.rdzv_endpoint) == ("2", "8", "node-a:29500")
    assert (given.module, given.training_script) == (True, "sailvit")
    assert parsed(given.training_script_args)["overrides"] == ["resume=auto"]


def test_the_skypilot_example_starts_torchrun_and_again_when_preempted(tmp_path: Path):
    task = yaml.safe_load(block("docs/training.md", "yaml", "num_nodes"))
    assert task.keys() == {"num_nodes", "resources", "run"}
    # What torchrun ends with when it is told to stop, whatever its processes end with.
    assert task["resources"]["job_recovery"]["recover_on_exit_codes"] == [1]
    values = {
        "SKYPILOT_NUM_NODES": "4",
        "SKYPILOT_NODE_RANK": "3",
        "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2",
    }
    given = get_args_parser().parse_args(called(task["run"], tmp_path, **values))
    assert (given.nnodes, given.node_rank, given.master_addr) == ("4", 3, "10.0.0.1")
    assert parsed(given.training_script_args)["overrides"] == ["resume=auto"]


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_yaml_examples_are_yaml_and_whole_recipes_are_recipes(path: Path, tmp_path: Path):
    for text in blocks(path, "yaml"):
        values = yaml.safe_load(text)
        if isinstance(values, dict) and {"name", "model", "stages"} <= values.keys():
            file = tmp_path / "recipe.yaml"
            file.write_text(text)
            assert load_recipe(file).name == values["name"]


def test_the_evidence_is_what_the_committed_cells_say(tmp_path):
    """Every block and the picture, written anew by the scripts of `make evidence`."""
    mark = r"(<!-- written by benchmarks/evidence.py: [a-z ]+ -->\n).*?(<!-- end -->)"
    for name, blocks_of_it in (("evidence.md", 7), ("earlier_evidence.md", 3)):
        page = tmp_path / name
        text = (ROOT / "docs" / name).read_text(encoding="utf-8")
        emptied, count = re.subn(mark, r"\1\2", text, flags=re.DOTALL)
        assert count == blocks_of_it
        assert len(emptied) < len(text)
        page.write_text(emptied, encoding="utf-8")
        subprocess.run([sys.executable, ROOT / "benchmarks" / "evidence.py", page], check=True)
        assert page.read_text(encoding="utf-8") == text
    readme = tmp_path / "README.md"
    told = (ROOT / "README.md").read_text(encoding="utf-8")
    readme.write_text(
        re.sub(r"\|[^|]*(\| `sailvit study studies/demo.yaml` \|)", r"| old \1", told)
    )
    assert readme.read_text(encoding="utf-8").count("| old |") == 2
    subprocess.run([sys.executable, ROOT / "benchmarks" / "evidence.py", readme], check=True)
    assert readme.read_text(encoding="utf-8") == told
    place, script = ROOT / "docs" / "pictures", tmp_path / "evidence.py"
    source = (place / "evidence.py").read_text(encoding="utf-8")
    # The script writes beside itself, and reads the study two folders up.
    script.write_text(source.replace("Path(__file__).parents[2]", f"Path({str(ROOT)!r})"))
    subprocess.run([sys.executable, script], check=True)
    assert (tmp_path / "evidence.svg").read_bytes() == (place / "evidence.svg").read_bytes()


def test_the_table_of_probes_is_what_the_results_say(tmp_path):
    page = tmp_path / "probes.md"
    text = (ROOT / "docs" / "probes.md").read_text(encoding="utf-8")
    begin, end = "<!-- table: benchmarks/probe_table.py -->\n", "<!-- end of table -->"
    before, rest = text.split(begin)
    page.write_text(before + begin + end + rest.split(end)[1], encoding="utf-8")
    script = ROOT / "benchmarks" / "probe_table.py"
    subprocess.run([sys.executable, script, page], check=True)
    assert page.read_text(encoding="utf-8") == text
    assert text.count("| world | connector-retrieval") == 2
