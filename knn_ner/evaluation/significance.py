"""Is the gain real? An interval and a p-value for the difference of two systems, over sentences and seeds.

The mean gain over the seeds is the estimate. It varies with the sentences that the test set happens to hold and with
the seed of the training. Two questions are asked of it:

- **Interval** (`gain_interval`): what would the mean gain be with other test sentences *and* other seeds? A bootstrap
  percentile interval (Efron and Tibshirani 1993, chapters 8 and 13; Koehn 2004 for scores that are no mean over
  sentences) that resamples both. They are crossed, since every tagger tags every sentence: each replicate draws
  sentences, the same for all seeds, and independently seeds, the same for all sentences (the pigeonhole bootstrap,
  Owen 2007, which errs on the wide side). Of n seeds n - 1 are drawn, with replacement: the n draws of the plain
  bootstrap would make the variance of so few seeds too small, by the factor (n - 1) / n (Rao and Wu 1988). With a
  single seed, only sentences are drawn.
- **p-value** (`p_value`): if tagger and kNN were the same system, how often would chance alone give a mean gain this
  far from 0? Paired approximate randomisation (Noreen 1989; Yeh 2000): the two outputs for a sentence are swapped or
  not. The sentence is the unit: the seeds' outputs of one sentence are similar, so all are swapped together (if they
  were swapped independently, p would be far too small). The p-value is about these taggers, and says nothing of
  other seeds; the interval does. Neither says anything of other corpora, nor that a significant gain matters
  (Berg-Kirkpatrick, Burkett and Klein 2012).

Both take the dev sentences, on which settings are tuned, as given: the gain includes what tuning wins or loses by
chance, but not how much that would vary with another dev set. F1 is no mean over sentences but a ratio of sums. So each
sentence's counts of right, predicted and gold entities are resampled, and F1 is computed from their sums.

`base` and `knn` are these counts of two systems, (seeds, sentences, 3) of the same sentences in the same order. Other
shapes raise ValueError.
"""

import numpy as np
from scipy.stats import permutation_test

from knn_ner.evaluation.metrics import percentages

RESAMPLES = 9999
LEVEL = 0.95
# Sentences drawn at once. It bounds the memory, whatever the number of resamples.
DRAWN_AT_ONCE = 4_000_000


def f1_of(counts: np.ndarray) -> np.ndarray:
    """F1 in percent of counts (..., 3): right, predicted and gold entities."""
    return percentages(counts[..., 0], counts[..., 1], counts[..., 2])[2]


def gains(base: np.ndarray, knn: np.ndarray) -> np.ndarray:
    """The gain in F1 of each seed: (seeds,)."""
    return f1_of(knn.sum(axis=1)) - f1_of(base.sum(axis=1))


def gain_interval(
    base: np.ndarray, knn: np.ndarray, resamples: int = RESAMPLES, level: float = LEVEL
) -> tuple[float, float]:
    """Lower and upper end, in percent, of the bootstrap interval of the mean gain over sentences and seeds."""
    return interval_of(gain_replicates(base, knn, resamples), level)


def interval_of(replicates: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """The percentile interval of bootstrap replicates (resamples,)."""
    tail = (1 - level) / 2
    low, high = np.quantile(replicates, [tail, 1 - tail])
    return float(low), float(high)


def gain_replicates(
    base: np.ndarray, knn: np.ndarray, resamples: int = RESAMPLES, seed: int = 0
) -> np.ndarray:
    """The mean gain on each resample of sentences and seeds: (resamples,).

    Those of another `seed` are independent: the average gain of several corpora has the averages of their replicates.
    """
    _check(base, knn)
    generator = np.random.default_rng(seed)
    seeds, sentences, _ = base.shape
    table = np.stack([base, knn]).transpose(2, 0, 1, 3).reshape(sentences, -1).astype(np.float64)
    drawn_seeds = max(1, seeds - 1)
    replicates = []
    step = max(1, DRAWN_AT_ONCE // sentences)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        times = _times_drawn(generator, sentences, sentences, size)
        totals = (times @ table).reshape(size, 2, seeds, 3)
        gain = f1_of(totals[:, 1]) - f1_of(totals[:, 0])
        weights = _times_drawn(generator, seeds, drawn_seeds, size)
        replicates.append((gain * weights).sum(axis=1) / drawn_seeds)
    return np.concatenate(replicates)


def p_value(base: np.ndarray, knn: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> float:
    """Two-sided p-value of the mean gain by paired approximate randomisation.

    It is exact if there are no more ways to swap than resamples; otherwise it is at least 2 / (resamples + 1).
    """
    _check(base, knn)
    # Swapping equal counts changes nothing.
    differs = (base != knn).any(axis=(0, 2))
    if differs.sum() < 2:
        # A single sentence is as extreme swapped as not.
        return 1.0
    same = base[:, ~differs].sum(axis=1)
    middle = same + (base[:, differs] + knn[:, differs]).sum(axis=1) / 2
    half = (knn[:, differs] - base[:, differs]).transpose(1, 0, 2).reshape(differs.sum(), -1) / 2

    def mean_gain(sign: np.ndarray, axis: int) -> np.ndarray:
        """The mean gain if each sentence's outputs stay (1) or are swapped (-1)."""
        offset = (np.moveaxis(sign, axis, -1) @ half).reshape(*sign.shape[:-1], *middle.shape)
        return (f1_of(middle + offset) - f1_of(middle - offset)).mean(axis=-1)

    result = permutation_test(
        (np.ones(differs.sum()),), mean_gain, permutation_type="samples", vectorized=True, axis=-1,
        n_resamples=resamples, batch=max(1, DRAWN_AT_ONCE // 10 // int(differs.sum())),
        rng=np.random.default_rng(seed),
    )  # fmt: skip
    return float(result.pvalue)


def _times_drawn(
    generator: np.random.Generator, items: int, draws: int, replicates: int
) -> np.ndarray:
    """How often each item is drawn, with replacement: (replicates, items) float64."""
    drawn = generator.integers(items, size=(replicates, draws))
    drawn += items * np.arange(replicates)[:, None]
    times = np.bincount(drawn.ravel(), minlength=replicates * items)
    return times.reshape(replicates, items).astype(np.float64)


def _check(base: np.ndarray, knn: np.ndarray) -> None:
    if base.shape != knn.shape or base.ndim != 3 or base.shape[2] != 3 or not base.size:
        raise ValueError(
            f"counts of shape {base.shape} and {knn.shape} found, expected two of the same shape "
            "(seeds, sentences, 3)"
        )
