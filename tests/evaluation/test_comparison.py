"""Whether models differ, in words that the numbers bear out."""

import numpy as np
import pytest
from scipy import stats

from sailvit.core.errors import DataError
from sailvit.core.seeding import numpy_generator
from sailvit.evaluation.comparison import compare_models, holm, paired_p_value
from sailvit.evaluation.scoring.results import ScoredAnswer


def answers(credits) -> list[ScoredAnswer]:
    return [ScoredAnswer(str(n), float(credit)) for n, credit in enumerate(credits)]


def test_words_follow_the_corrected_test():
    base = answers([0, 1] * 100)
    better, same, worse = [1] * 200, [1, 0] * 100, [0, 0] * 100
    models = {"base": {"s": base}}
    models |= {n: {"s": answers(c)} for n, c in (("b", better), ("s", same), ("w", worse))}
    found = compare_models(models)
    assert [each.word for each in found] == ["improves", "does not differ", "worse"]
    assert found[0].difference == 50
    assert 42 < found[0].low < 50 < found[0].high < 58
    assert (found[1].gained, found[1].lost, found[1].p_value) == (100, 100, 1)
    assert all(each.corrected >= each.p_value for each in found)


def test_one_of_many_models_by_chance_is_no_improvement():
    rng = numpy_generator(3)
    models = {str(n): {"s": answers(rng.integers(0, 2, 100))} for n in range(21)}
    found = compare_models(models)
    assert min(each.p_value for each in found) < 0.2
    assert {each.word for each in found} == {"does not differ"}


def test_the_exact_test_is_mcnemars():
    differences = np.array([1.0] * 9 + [-1.0] * 2 + [0.0] * 50)
    found = paired_p_value(differences, numpy_generator(0))
    assert found == pytest.approx(stats.binomtest(2, 11).pvalue)
    assert paired_p_value(np.zeros(5), numpy_generator(0)) == 1


def test_fractions_are_tested_by_flipping_signs():
    rng = numpy_generator(1)
    noise = rng.normal(0, 0.2, 60)
    assert paired_p_value(noise - noise.mean() + 0.2, numpy_generator(0)) < 0.001
    exact = stats.permutation_test(
        (noise[:12],), np.mean, permutation_type="samples", n_resamples=np.inf
    ).pvalue
    assert paired_p_value(noise[:12], numpy_generator(0)) == pytest.approx(exact, abs=0.02)


def test_holm_as_in_the_textbook():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_models_that_answered_other_questions_are_refused():
    with pytest.raises(DataError, match="other questions"):
        compare_models({"a": {"s": answers([1])}, "b": {"s": answers([1, 0])}})
    with pytest.raises(DataError, match="nothing to compare"):
        compare_models({"a": {"s": answers([1])}, "b": {"t": answers([1])}})
