"""Several annotators' spread in the variance of an example: densities, masks, MixUp, recovery."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from scipy import stats

from mtl_face.objective import losses, mixup, uncertainty
from mtl_face.tasks import VA_LOG_VARIANCE, VA_RATER_VARIANCE

BATCH, RATERS = 16, 4
T = {"va": 0.3, "au": 0.7, "expr": 2.0}


@pytest.fixture
def rated():
    """(ratings [B, R, 2], outputs, targets, weights), valence and arousal labelled alone."""
    rng = np.random.default_rng(0)
    rating_BR2 = rng.normal(0, 0.4, (BATCH, RATERS, 2))
    outputs = {
        "va": rng.normal(0, 0.5, (BATCH, 2)),
        VA_LOG_VARIANCE: rng.normal(0, 1, (BATCH, 2)),
        "au": np.zeros((BATCH, 12)),
        "expr": np.zeros((BATCH, 8)),
    }
    targets = {
        "va": rating_BR2.mean(axis=1),
        VA_RATER_VARIANCE: rating_BR2.var(axis=1),
        "au": np.zeros((BATCH, 12)),
        "expr": np.full((BATCH, 8), 1 / 8),
    }
    weights = {"va": np.ones(BATCH), "au": np.zeros((BATCH, 12)), "expr": np.zeros(BATCH)}
    arrays = jax.tree.map(lambda x: np.asarray(x, np.float32), (outputs, targets, weights))
    return rating_BR2, *arrays


def total(outputs, targets, weights, share=1.0, kind="likelihood", beta=0.0):
    return losses.multi_task_loss(
        outputs,
        targets,
        weights,
        uncertainty.init_uncertainty(kind, T) or None,
        kind=kind,
        temperatures=T,
        options=losses.LossOptions(beta_nll=beta, va_spread=share),
    ).total


def slopes(outputs, targets, weights, **options):
    return jax.grad(functools.partial(total, **options))(outputs, targets, weights)


def std_of(outputs):
    return np.sqrt(T["va"] * np.exp(outputs[VA_LOG_VARIANCE].astype(np.float64)))


def test_whole_spread_is_the_likelihood_of_each_rating(rated):
    rating_BR2, outputs, targets, weights = rated
    weights["va"] = np.linspace(0, 1, BATCH).astype(np.float32)
    density = stats.norm.logpdf(
        rating_BR2, outputs["va"][:, None].astype(np.float64), std_of(outputs)[:, None]
    )
    expected = np.average(-density.mean(axis=(1, 2)), weights=weights["va"])
    assert float(total(outputs, targets, weights)) == pytest.approx(expected, rel=1e-5)


def test_it_is_that_of_the_mean_and_of_the_sample_variance(rated):
    """Times the annotators, and but for what depends on the ratings alone."""
    rating_BR2, outputs, targets, weights = rated
    mean_B2, sample_B2 = rating_BR2.mean(axis=1), rating_BR2.var(axis=1, ddof=1)
    freedom = RATERS - 1
    differences = []
    for moved in (0.0, 0.4, -0.8):
        moved_outputs = outputs | {
            "va": outputs["va"] + np.float32(moved),
            VA_LOG_VARIANCE: outputs[VA_LOG_VARIANCE] * np.float32(1 + moved),
        }
        std_B2 = std_of(moved_outputs)
        of_mean = stats.norm.logpdf(mean_B2, moved_outputs["va"], std_B2 / np.sqrt(RATERS))
        of_variance = stats.chi2.logpdf(
            freedom * sample_B2, freedom, scale=std_B2**2
        )  # the density of the sum of squares, whose scale is the variance
        joint = -(of_mean + of_variance).mean()
        differences.append(RATERS * float(total(moved_outputs, targets, weights)) - joint)
    np.testing.assert_allclose(differences, differences[0], rtol=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_best_variance_is_error_and_share_of_the_spread(rated, share):
    _, outputs, targets, weights = rated
    best = (outputs["va"] - targets["va"]) ** 2 + share * targets[VA_RATER_VARIANCE]
    at_best = outputs | {VA_LOG_VARIANCE: np.log(best / T["va"])}
    np.testing.assert_allclose(
        slopes(at_best, targets, weights, share=share)[VA_LOG_VARIANCE], 0, atol=1e-7
    )
    larger = at_best | {VA_LOG_VARIANCE: at_best[VA_LOG_VARIANCE] + 0.5}
    assert (slopes(larger, targets, weights, share=share)[VA_LOG_VARIANCE] > 1e-4).all()


def test_the_mean_learns_as_without(rated):
    """Whatever the share and beta, the spread is in no gradient of the mean."""
    _, outputs, targets, weights = rated
    for beta in (0.0, 0.5):
        one, other = (
            slopes(outputs, targets, weights, share=share, beta=beta)["va"] for share in (0.0, 1.0)
        )
        np.testing.assert_array_equal(one, other)
        assert (np.asarray(one) != 0).all()


def test_rows_without_a_label_reach_nothing(rated):
    _, outputs, targets, weights = rated
    weights["va"][::2] = 0
    spoiled = dict(targets)
    for name in ("va", VA_RATER_VARIANCE):
        spoiled[name] = targets[name].copy()
        spoiled[name][::2] = np.nan
    clean, found = (slopes(outputs, given, weights) for given in (targets, spoiled))
    for name in ("va", VA_LOG_VARIANCE):
        np.testing.assert_array_equal(found[name], clean[name])
        assert (np.asarray(found[name])[::2] == 0).all()
        assert (np.asarray(found[name])[1::2] != 0).all()


def test_rows_of_one_annotator_learn_as_without(rated):
    _, outputs, targets, weights = rated
    targets[VA_RATER_VARIANCE][:5] = 0
    one, other = (slopes(outputs, targets, weights, share=share) for share in (0.0, 1.0))
    with_one, without = (np.asarray(found[VA_LOG_VARIANCE]) for found in (other, one))
    np.testing.assert_array_equal(with_one[:5], without[:5])
    assert (with_one[5:] < without[5:]).all()


def test_mixed_examples_have_the_expected_error_of_mixed_ratings(rated):
    """MixUp of each pair of two images' ratings, in the mean over the pairs."""
    rating_BR2, outputs, targets, weights = rated
    weights["va"][[3, 6, 8, 9]] = 0
    weights["va"][11] = 0.25  # `label_weight`
    targets["va"][3] = targets[VA_RATER_VARIANCE][3] = np.nan
    image = np.zeros((BATCH, 1, 1, 3), np.float32)
    key = jax.random.key(3)
    _, mixed, shares = mixup.mixup(key, image, targets, weights, alpha=0.8)
    share_B = np.asarray(mixup.draw_shares(key, BATCH, alpha=0.8), np.float64)
    for row in range(BATCH):
        partner = row ^ 1
        part = np.array([share_B[row], 1 - share_B[row]]) * weights["va"][[row, partner]]
        assert float(shares["va"][row]) == pytest.approx(part.sum(), rel=1e-5)
        if not part.sum():
            np.testing.assert_array_equal(mixed[VA_RATER_VARIANCE][row], 0)
            continue
        own, other = part / part.sum()
        pair_RR2 = own * rating_BR2[row][:, None] + other * rating_BR2[partner][None]
        expected = ((pair_RR2 - outputs["va"][row]) ** 2).mean(axis=(0, 1))
        error = (mixed["va"][row] - outputs["va"][row]) ** 2
        found = uncertainty.with_spread(error, mixed[VA_RATER_VARIANCE][row], 1.0)
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_devices_and_parts_of_a_batch_add_up_to_it(rated):
    _, outputs, targets, weights = rated
    weights["va"][:6] = 0
    targets["va"][:6] = targets[VA_RATER_VARIANCE][:6] = np.nan
    expected = slopes(outputs, targets, weights)
    place = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))
    found = jax.jit(slopes, in_shardings=place)(outputs, targets, weights)
    parts = []
    for start in range(0, BATCH, 4):
        part = jax.tree.map(lambda leaf, s=start: leaf[s : s + 4], (outputs, targets, weights))
        share = part[2]["va"].sum() / weights["va"].sum()
        parts.append(jax.tree.map(lambda leaf, s=share: s * leaf, slopes(*part)))
    for name in ("va", VA_LOG_VARIANCE):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-8)
        together = np.concatenate([part[name] for part in parts])
        np.testing.assert_allclose(together, expected[name], rtol=1e-4, atol=1e-8)


@functools.cache
def learned_std(share):
    """What is learned of 1,500 rows of three annotators, beside their noise and one's rating."""
    rng = np.random.default_rng(2)
    cause = rng.uniform(-1, 1, (3000, 2))
    noise = 0.3 + 0.25 * cause
    truth = 0.4 * np.sin(3 * cause[:, ::-1])
    rating = rng.normal(truth[:, None], noise[:, None], (3000, 3, 2))
    feature = np.concatenate([cause, rng.normal(size=(3000, 10))], axis=1).astype(np.float32)
    label, variance = rating.mean(axis=1)[:1500], rating.var(axis=1)[:1500]
    error = jnp.asarray((label - truth[:1500]) ** 2, jnp.float32)  # the mean is known
    expected = uncertainty.with_spread(error, jnp.asarray(variance, jnp.float32), share)

    def loss(params):
        ratio = jnp.asarray(feature[:1500]) @ params["kernel"] + params["bias"][None]
        return jnp.mean(uncertainty.per_example_objective("fixed", expected, ratio, 0.1))

    optimizer = optax.adam(0.03)

    @jax.jit
    def fit(params):
        def step(carry, _):
            params, state = carry
            updates, state = optimizer.update(jax.grad(loss)(params), state)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, optimizer.init(params)), length=300)[0][0]

    params = fit({"kernel": jnp.zeros((12, 2)), "bias": jnp.zeros(2)})
    std = np.sqrt(
        0.1 * np.exp(feature[1500:] @ np.asarray(params["kernel"]) + np.asarray(params["bias"]))
    )
    return std, noise[1500:], rating[1500:] - truth[1500:, None]


def test_known_noise_is_recovered_and_one_rating_is_covered():
    std, noise, off = learned_std(1.0)
    assert stats.spearmanr(std.ravel(), noise.ravel()).statistic > 0.97
    inside = np.abs(off) < stats.norm.ppf(0.9) * std[:, None]
    assert inside.mean() == pytest.approx(0.8, abs=0.02)


def test_without_the_spread_the_labels_are_covered_and_a_rating_is_not():
    std, noise, off = learned_std(0.0)
    limit = stats.norm.ppf(0.9) * std
    assert (np.abs(off.mean(axis=1)) < limit).mean() == pytest.approx(0.8, abs=0.02)
    assert (np.abs(off) < limit[:, None]).mean() < 0.6
    with_spread = learned_std(1.0)[0]
    ranks = [
        stats.spearmanr(found.ravel(), noise.ravel()).statistic for found in (std, with_spread)
    ]
    assert ranks[0] < ranks[1]


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_out_of_its_range(rated, share):
    with pytest.raises(ValueError, match="from 0 to 1"):
        total(*rated[1:], share=share)


@pytest.mark.parametrize("absent", [VA_LOG_VARIANCE, VA_RATER_VARIANCE])
def test_spread_without_what_it_needs_is_refused(rated, absent):
    _, outputs, targets, weights = rated
    (outputs if absent in outputs else targets).pop(absent)
    with pytest.raises(ValueError, match="va_spread is 1"):
        total(outputs, targets, weights)


def test_a_spread_of_another_shape_is_refused(rated):
    _, outputs, targets, weights = rated
    targets[VA_RATER_VARIANCE] = targets[VA_RATER_VARIANCE][:, :1]
    with pytest.raises(ValueError, match="va_rater_variance has shape"):
        total(outputs, targets, weights)
