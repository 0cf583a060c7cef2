import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy import stats

from mtl_face import config, tasks
from mtl_face.errors import ConfigError
from mtl_face.objective import mixup

BATCH = 8
MISSING = (np.nan, -5.0, -1.0, np.inf)


@functools.cache
def mixer(alpha):
    return jax.jit(functools.partial(mixup.mixup, alpha=alpha))


def make_batch(seed, present=None, fractional=False):
    """Images, targets and weights; missing labels hold what files hold for them."""
    rng = np.random.default_rng(seed)
    image = rng.uniform(0, 255, (BATCH, 4, 4, 3)).astype(np.float32)
    targets = {
        "va": rng.uniform(-1, 1, (BATCH, 2)),
        "au": rng.integers(0, 2, (BATCH, 12)),
        "expr": np.eye(8)[rng.integers(0, 8, BATCH)],
    }
    if present is None:
        present = {
            "va": rng.random(BATCH),
            "au": rng.random((BATCH, 12)),
            "expr": rng.random(BATCH),
        }
        present = {task: value < 0.6 for task, value in present.items()}
    weights = {}
    for task, mask in present.items():
        share = rng.uniform(0.1, 1, mask.shape) if fractional else 1.0
        weights[task] = np.where(mask, share, 0.0).astype(np.float32)
        junk = rng.choice(MISSING, targets[task].shape)
        wide = mask if mask.ndim == 2 else mask[:, None]
        targets[task] = np.where(wide, targets[task], junk).astype(np.float32)
    return image, targets, weights


def reference(share, image, targets, weights):
    """The rule, one label at a time, in float64."""
    mixed_image = np.zeros(image.shape)
    mixed_targets = {task: np.zeros(value.shape) for task, value in targets.items()}
    mixed_weights = {task: np.zeros(value.shape) for task, value in weights.items()}
    for i in range(BATCH):
        j = i + 1 if i % 2 == 0 else i - 1
        mixed_image[i] = share[i] * image[i] + (1 - share[i]) * image[j]
        for task, target in targets.items():
            weight = weights[task]
            for k in range(target.shape[1]):
                total, value = 0.0, 0.0
                for part, example in ((share[i], i), (1 - share[i], j)):
                    w = weight[example] if weight.ndim == 1 else weight[example, k]
                    if w > 0:
                        total += part * w
                        value += part * w * float(target[example, k])
                if total > 1e-30:
                    mixed_targets[task][i, k] = value / total
                if weight.ndim == 1:
                    mixed_weights[task][i] = total
                else:
                    mixed_weights[task][i, k] = total
    return mixed_image, mixed_targets, mixed_weights


def check_against_reference(batch, seed, alpha=0.4):
    key = jax.random.key(seed)
    share = np.asarray(mixup.draw_shares(key, BATCH, alpha=alpha), np.float64)
    image, targets, weights = mixer(alpha)(key, *batch)
    expected_image, expected_targets, expected_weights = reference(share, *batch)
    np.testing.assert_allclose(image, expected_image, atol=1e-4)
    assert targets.keys() == weights.keys() == batch[1].keys()
    for task in targets:
        np.testing.assert_allclose(weights[task], expected_weights[task], atol=2e-6)
        np.testing.assert_allclose(targets[task], expected_targets[task], atol=2e-6)
        assert targets[task].dtype == weights[task].dtype == jnp.float32
        assert np.all((np.asarray(weights[task]) >= 0) & (np.asarray(weights[task]) <= 1))


@pytest.mark.parametrize("fractional", [False, True])
def test_against_the_rule(fractional):
    for seed in range(5):
        check_against_reference(make_batch(seed, fractional=fractional), seed)


masks = st.fixed_dictionaries(
    {
        "va": npst.arrays(bool, (BATCH,)),
        "au": npst.arrays(bool, (BATCH, len(tasks.AU_NUMBERS))),
        "expr": npst.arrays(bool, (BATCH,)),
    }
)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(present=masks, seed=st.integers(0, 2**31 - 1), fractional=st.booleans())
def test_any_mask(present, seed, fractional):
    check_against_reference(make_batch(seed, present, fractional), seed)


def test_all_present_is_the_papers_mixup():
    full = {
        "va": np.ones(BATCH, bool),
        "au": np.ones((BATCH, 12), bool),
        "expr": np.ones(BATCH, bool),
    }
    image, targets, weights = make_batch(0, full)
    key = jax.random.key(0)
    share = np.asarray(mixup.draw_shares(key, BATCH, alpha=0.4))[:, None]
    _, mixed, mixed_weights = mixer(0.4)(key, image, targets, weights)
    partner = np.arange(BATCH) ^ 1
    for task in tasks.TASKS:
        expected = share * targets[task] + (1 - share) * targets[task][partner]
        np.testing.assert_allclose(mixed[task], expected, atol=1e-6)
        np.testing.assert_array_equal(mixed_weights[task], 1.0)
    np.testing.assert_allclose(np.sum(mixed["expr"], axis=1), 1.0, atol=1e-6)


def test_all_missing_stays_missing():
    none = {task: np.zeros(shape, bool) for task, shape in
            (("va", BATCH), ("au", (BATCH, 12)), ("expr", BATCH))}  # fmt: skip
    _, targets, weights = mixer(0.4)(jax.random.key(0), *make_batch(0, none))
    for value in [*targets.values(), *weights.values()]:
        np.testing.assert_array_equal(value, 0.0)


def test_one_label_keeps_its_value_at_its_share():
    batch = make_batch(1, {"va": np.arange(BATCH) % 2 == 0, "au": np.zeros((BATCH, 12), bool),
                           "expr": np.zeros(BATCH, bool)})  # fmt: skip
    key = jax.random.key(1)
    share = np.asarray(mixup.draw_shares(key, BATCH, alpha=0.4))
    _, targets, weights = mixer(0.4)(key, *batch)
    even = np.arange(0, BATCH, 2)
    np.testing.assert_allclose(weights["va"][even], share[even], atol=1e-7)
    np.testing.assert_allclose(weights["va"][even + 1], 1 - share[even + 1], atol=1e-7)
    np.testing.assert_allclose(targets["va"][even], batch[1]["va"][even], atol=1e-7)
    np.testing.assert_allclose(targets["va"][even + 1], batch[1]["va"][even], atol=1e-7)


def test_missing_values_reach_no_gradient():
    image, targets, weights = make_batch(2)
    assert any(np.isnan(value).any() for value in targets.values())

    def total(image, weights):
        _, mixed, mixed_weights = mixup.mixup(jax.random.key(2), image, targets, weights, alpha=0.4)
        parts = jax.tree.map(jnp.sum, (mixed, mixed_weights))
        return sum(jax.tree.leaves(parts)) + jnp.sum(image)

    for gradient in jax.tree.leaves(jax.jit(jax.grad(total, argnums=(0, 1)))(image, weights)):
        assert np.all(np.isfinite(gradient))


def test_vanishing_share_gives_no_nan():
    # Beta(0.01, 0.01) has quantiles among the float32 numbers that some processors flush to 0.
    for seed in range(20):
        _, targets, weights = mixer(0.01)(jax.random.key(seed), *make_batch(seed))
        for value in jax.tree.leaves((targets, weights)):
            assert np.all(np.isfinite(value))


def test_alpha_zero_changes_nothing():
    image, targets, weights = make_batch(3)
    image = image[:5]
    mixed = mixup.mixup(jax.random.key(0), image, targets, weights, alpha=0.0)
    assert mixed[0] is image
    assert mixed[1] is targets
    assert mixed[2] is weights


def test_key_decides():
    batch = make_batch(4)
    first, again, other = (mixer(0.4)(jax.random.key(k), *batch)[0] for k in (7, 7, 8))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


@pytest.mark.parametrize("alpha", [0.1, 0.4, 1.0, 2.0, 20.0])
def test_shares_follow_the_beta_distribution(alpha):
    draws = 200_000
    share = np.asarray(mixup.draw_shares(jax.random.key(0), draws, alpha=alpha), np.float64)
    beta = stats.beta(alpha, alpha)
    assert np.all((share >= 0) & (share <= 1))
    # Each half apart, as a distance from its end: near 1, float32 shares would tie.
    # 1.95 / sqrt(n) is exceeded by chance once in a thousand; the table may add 1/4096.
    for half in (share[share < 0.5], 1 - share[share > 0.5]):
        half = half[half > 1e-4]
        start = beta.cdf(1e-4)
        assert abs(len(half) / draws - (0.5 - start)) < 0.005
        result = stats.kstest(half, lambda x, start=start: (beta.cdf(x) - start) / (0.5 - start))
        assert result.statistic < 1.95 / np.sqrt(len(half)) + 2 / 4096
    assert abs(share.mean() - 0.5) < 5 * beta.std() / np.sqrt(draws)
    assert abs(share.std() / beta.std() - 1) < 0.01


def test_shares_are_independent_draws():
    share = np.asarray(mixup.draw_shares(jax.random.key(1), 4096, alpha=1.0))
    assert len(np.unique(share)) > 4000
    assert abs(np.corrcoef(share[::2], share[1::2])[0, 1]) < 5 / np.sqrt(2048)


def test_refusals():
    image, targets, weights = make_batch(5)
    odd = jax.tree.map(lambda value: value[:7], (image, targets, weights))
    with pytest.raises(ValueError, match="7: use an even batch size"):
        mixup.mixup(jax.random.key(0), *odd, alpha=0.4)
    for alpha in (-0.1, np.nan, np.inf):  # which the settings refuse
        with pytest.raises(ConfigError, match="mixup_alpha"):
            config.validate({"augmentation": {"mixup_alpha": float(alpha)}}, reads_data=False)
    with pytest.raises(ValueError, match="weights of"):
        mixup.mixup(jax.random.key(0), image, targets, {"va": weights["va"]}, alpha=0.4)
