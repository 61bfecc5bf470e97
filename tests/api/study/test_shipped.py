"""The studies of this repository are valid and ask for what they say."""

from collections import Counter
from pathlib import Path

from sailvit.api.study.lineage import Lineage
from sailvit.core.study.cells import cells_of
from sailvit.recipes.studies import load_study

STUDIES = Path(__file__).parents[3] / "studies"


def test_the_demos_study_has_all_dimensions():
    given = load_study(STUDIES / "demo.yaml")
    cells = cells_of(given)
    levels = {factor: len(given.levels(factor)) for factor in given.factors}
    assert levels == {"tower": 3, "language": 3, "strategy": 3, "data": 3, "arm": 11}
    # Base and gradual in five seeds, nine other arms and eight other levels of two arms in three.
    assert len(cells) == 2 * 5 + 9 * 3 + 8 * 2 * 3
    families = {tower.family for tower in given.towers.values()}
    assert families == {"siglip", "aimv2"}


def test_the_demos_cells_share_bases_and_refinements(tmp_path: Path):
    given = load_study(STUDIES / "demo.yaml")
    lineage = Lineage(given, tmp_path)
    cells = [
        c for c in cells_of(given) if c.seed < 2 and dict(c.levels)["arm"] in ("base", "gradual")
    ]
    for cell in cells:
        lineage.add(cell)
    made = Counter(each.recipe.name for each in lineage.trainings.values())
    # Two towers and two languages for all seeds; three towers are refined in each of two seeds.
    assert (made["see-contrast"], made["read-read"]) == (2, 2)
    assert made["refine-coarse"] == made["refine-fine"] == made["refine-knowledge"] == 3 * 2


def test_the_regimes_bases_are_trained_once(tmp_path: Path):
    given = load_study(STUDIES / "regime.yaml")
    lineage = Lineage(given, tmp_path)
    base = [c for c in cells_of(given) if dict(c.levels)["arm"] == "base" and c.seed == 0]
    keys = {lineage.add(cell).trainings for cell in base}
    assert len(base) == 3 * 2
    # Target training is measured at one length.
    assert len(keys - {()}) == 1


def test_the_regimes_ways_have_equal_samples_and_equal_rates(tmp_path: Path):
    given = load_study(STUDIES / "regime.yaml")
    lineage = Lineage(given, tmp_path)
    wanted = {"rate": "3e-3", "length": "tenth"}
    cells = {
        levels["arm"]: lineage.add(cell)
        for cell in cells_of(given)
        for levels in [dict(cell.levels)]
        if cell.seed == 0 and wanted.items() <= levels.items()
    }
    stages = {arm: [lineage.trainings[key].stage for key in cells[arm].trainings] for arm in cells}
    samples = {arm: sum(each.length.samples for each in stages[arm]) for arm in cells}
    assert samples["gradual"] == samples["at-once"] > samples["at-once-compute"] > 0
    assert abs(samples["at-once-warm"] - samples["gradual"]) <= 1
    for arm, own in stages.items():
        assert {each.optim.lr for each in own if each.share("tower")} <= {3e-3}, arm
    warm = lineage.trainings[cells["at-once-warm"].trainings[-1]].recipe.model.connector
    assert warm.source == f"study://{cells['at-once-warm'].trainings[0]}/connector"
