"""Intervals and p-values of a gain: exact where it can be, and laws that any such procedure obeys."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knn_ner.evaluation.significance import f1_of, gain_interval, gains, p_value


def draw_counts(generator: np.random.Generator, seeds: int, sentences: int) -> np.ndarray:
    gold = np.broadcast_to(generator.integers(0, 4, sentences), (seeds, sentences))
    predicted = generator.integers(0, 4, (seeds, sentences))
    right = np.minimum(gold, generator.integers(0, predicted + 1))
    return np.stack([right, predicted, gold], axis=-1)


def two_systems(number: int, seeds: int = 3, sentences: int = 40) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(number)
    base = draw_counts(generator, seeds, sentences)
    knn = draw_counts(generator, seeds, sentences)
    knn[:, :, 2] = base[:, :, 2]
    knn[:, :, 0] = np.minimum(knn[:, :, 0], base[:, :, 2])
    return base, knn


def test_gains_are_of_the_sums():
    """Two sentences: 1 of 2 found and none of 1; then 2 of 2, and one too many. F1 40 and 80."""
    base = np.array([[[1, 2, 2], [0, 0, 1]]])
    knn = np.array([[[2, 2, 2], [0, 1, 1]]])
    assert f1_of(base.sum(axis=1)).tolist() == [40]
    assert gains(base, knn) == pytest.approx([200 * 2 / 6 - 40])


def test_p_by_hand():
    """One sentence in three is better by one entity: of 2 ways to swap it both are as extreme."""
    base = np.array([[[1, 1, 1], [0, 0, 1], [1, 1, 1]]])
    knn = np.array([[[1, 1, 1], [1, 1, 1], [1, 1, 1]]])
    assert p_value(base, knn) == 1
    # Five of six: all must be as they are, or all swapped, 2 of 32.
    base = np.array([[[0, 0, 1]] * 5 + [[1, 1, 1]]])
    knn = np.array([[[1, 1, 1]] * 6])
    assert p_value(base, knn) == 2 / 32


def test_p_is_that_of_all_swaps_counted_one_by_one():
    base, knn = two_systems(4, seeds=2, sentences=9)
    observed = gains(base, knn).mean()
    null = []
    for swap in itertools.product([False, True], repeat=9):
        chosen = np.array(swap)[None, :, None]
        swapped = np.where(chosen, knn, base), np.where(chosen, base, knn)
        null.append(gains(*swapped).mean())
    null = np.array(null)
    tails = [(null >= observed - 1e-9).mean(), (null <= observed + 1e-9).mean()]
    assert p_value(base, knn) == pytest.approx(min(1, 2 * min(tails)))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_identical_systems_gain_nothing(number, seeds):
    base, _ = two_systems(number, seeds)
    assert gains(base, base).tolist() == [0] * seeds
    assert gain_interval(base, base, resamples=200) == (0, 0)
    assert p_value(base, base) == 1


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_swapping_the_systems_flips_the_sign(number, seeds):
    base, knn = two_systems(number, seeds)
    low, high = gain_interval(base, knn, resamples=300)
    assert low <= high
    assert gain_interval(knn, base, resamples=300) == pytest.approx((-high, -low))
    assert p_value(knn, base, resamples=300) == pytest.approx(p_value(base, knn, resamples=300))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6))
def test_the_order_of_seeds_does_not_matter_to_p(number):
    base, knn = two_systems(number)
    order = [2, 0, 1]
    assert p_value(base[order], knn[order], resamples=300) == p_value(base, knn, resamples=300)


def test_copies_of_a_seed_add_no_evidence():
    """The cluster is the sentence: five times the same output is one output."""
    base, knn = two_systems(7, seeds=1)
    five = np.repeat(base, 5, axis=0), np.repeat(knn, 5, axis=0)
    assert p_value(*five, resamples=500) == p_value(base, knn, resamples=500)
    alone, together = gain_interval(base, knn), gain_interval(*five)
    assert together == pytest.approx(alone, abs=1.0)


def test_the_interval_has_the_variance_of_a_mean():
    """Sentences all alike, so that only seeds vary: the spread is that of the mean of n seeds."""
    sentences = 10
    base = np.tile(np.array([10, 20, 20]), (4, sentences, 1))
    knn = base.copy()
    knn[:, :, 0] += np.array([0, 1, 2, 5])[:, None]
    seed_gains = gains(base, knn)
    low, high = gain_interval(base, knn, resamples=20_000, level=0.6826)
    expected = seed_gains.std(ddof=1) / np.sqrt(4)
    assert (high - low) / 2 == pytest.approx(expected, rel=0.15)


def test_the_interval_of_one_seed_is_the_sentences_bootstrap():
    """Against scipy, which resamples sentences alone."""
    from scipy.stats import bootstrap

    base, knn = two_systems(11, seeds=1, sentences=150)

    def statistic(index, axis):
        # Resampled indices in the last axis.
        return (
            gains(base[0][index], knn[0][index])
            if index.ndim > 1
            else gains(base[:, index], knn[:, index])[0]
        )

    theirs = bootstrap(
        (np.arange(150),), statistic, method="percentile", n_resamples=9999, rng=3, vectorized=True
    ).confidence_interval
    ours = gain_interval(base, knn)
    spread = theirs.high - theirs.low
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.05 * spread)


def test_a_true_gain_is_found_and_noise_is_not():
    generator = np.random.default_rng(0)
    gold = np.full((3, 400), 2)
    right = generator.binomial(2, 0.5, (3, 400))
    base = np.stack([right, gold, gold], axis=-1)
    better = base.copy()
    better[:, :, 0] += (generator.random((3, 400)) < 0.2) & (right < 2)
    low, _ = gain_interval(base, better)
    assert low > 0 and p_value(base, better) == 2 / 10_000
    other = np.stack([generator.binomial(2, 0.5, (3, 400)), gold, gold], axis=-1)
    low, high = gain_interval(base, other)
    assert low < 0 < high and p_value(base, other) > 0.05


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"counts of shape \(2, 3\) and \(2, 3\) found"):
        p_value(np.zeros((2, 3)), np.zeros((2, 3)))
