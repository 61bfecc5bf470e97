"""The trainer: a recipe's stages in order, each started, run, proved and saved; and continued where it stopped."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from sailvit.checkpoint.state import clear_state, load_state, save_state
from sailvit.core.errors import InterruptedRunError, RunError
from sailvit.core.recipe import PARTS, Recipe, Stage
from sailvit.core.records import Source
from sailvit.core.run import RunFolder, read_lines
from sailvit.data.formats import open_source
from sailvit.data.loader import Feed, Loader
from sailvit.data.samples import SampleBuilder
from sailvit.distributed.processes import rank, world
from sailvit.models.build import Assembly, build, load_connector, load_language, load_tower
from sailvit.models.folders import save_part
from sailvit.training.hooks import Hook, StopOnSignal
from sailvit.training.job import StageJob
from sailvit.training.loop import run_stage
from sailvit.training.manifest import note_resume, note_stage, start_manifest
from sailvit.training.objectives import make_objectives
from sailvit.training.optim import freeze, load_moments, make_optimizer, named_moments
