"""Heads trained on features: they find what is there, and the learning rate is chosen."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from slowfast_maskfeat.features import FeatureRows
from slowfast_maskfeat.probes import AttentiveHead, FitSettings, LinearHead, fit_heads, head_scores

CPU = torch.device("cpu")


def _settings(**changes) -> FitSettings:
    options = {
        "learning_rates": (0.1, 1.0),
        "optimizer": "sgd",
        "epochs": 30,
        "batch_size": 64,
        "weight_decay": 0.0,
        "seed": 0,
    }
    return FitSettings(**{**options, **changes})


def _fit(make_head, train, validation, settings):
    return fit_heads(make_head, *train, validation, settings, device=CPU, show_progress=False)


def _blobs(num_rows: int, seed: int, spread: float = 0.3):
    """Three classes about three corners, in features of very different scales."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num_rows) % 3
    features = 3 * torch.eye(3, 8)[labels] + spread * torch.randn(num_rows, 8, generator=generator)
    return features * torch.tensor([1e3, 1, 1e-3, 1, 1, 1, 1, 1]) + 5, labels


def _linear(features: torch.Tensor, num_classes: int = 3):
    std, mean = torch.std_mean(features, dim=0)
    return lambda: LinearHead(mean, std, num_classes)


def test_separable_features_are_separated():
    train, test = _blobs(300, 0), _blobs(90, 1)
    fit = _fit(_linear(train[0]), train, test, _settings())
    assert fit.validation_top1[fit.learning_rate] == 100.0
    scores = head_scores(fit.head, test[0], batch_size=32, device=CPU)
    assert scores.argmax(1).equal(test[1])
    assert torch.allclose(scores.sum(1), torch.ones(90))


def test_a_linear_probe_reaches_the_minimum_of_its_loss():
    # Overlapping classes, for which the loss has one finite minimum; L-BFGS finds it.
    features, labels = _blobs(200, 0, spread=3.0)
    head = _linear(features)()
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=500, tolerance_change=1e-12)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = torch.nn.functional.cross_entropy(head(features), labels)
        value.backward()
        return value

    optimizer.step(loss)
    best = float(loss().detach())
    fit = _fit(
        _linear(features),
        (features, labels),
        (features, labels),
        _settings(epochs=300, batch_size=200, learning_rates=(1.0,)),
    )
    with torch.no_grad():
        found = float(torch.nn.functional.cross_entropy(fit.head(features), labels))
    assert found == pytest.approx(best, rel=1e-4)
    assert best > 0.1  # the minimum is not at infinity


def test_the_learning_rate_is_chosen_on_the_validation_rows():
    train, test = _blobs(300, 0), _blobs(90, 1)
    fit = _fit(_linear(train[0]), train, test, _settings(learning_rates=(1e-9, 0.5), epochs=10))
    assert fit.learning_rate == 0.5
    assert fit.validation_top1[1e-9] < 100.0
    # Side by side is as alone: heads share nothing.
    alone = _fit(_linear(train[0]), train, test, _settings(learning_rates=(0.5,), epochs=10))
    assert torch.allclose(alone.head.linear.weight, fit.head.linear.weight)


def test_features_on_the_disk_train_the_same_head(tmp_path):
    (features, labels), test = _blobs(300, 0), _blobs(90, 1)
    in_memory = _fit(_linear(features), (features, labels), test, _settings(epochs=3))
    features.numpy().tofile(tmp_path / "f")
    on_disk = np.memmap(tmp_path / "f", np.float32, mode="r", shape=(300, 8))
    rows = FeatureRows((on_disk,), np.zeros(300, np.int32), np.arange(300))
    fit = _fit(_linear(features), (rows, labels), test, _settings(epochs=3))
    assert fit.validation_top1 == in_memory.validation_top1
    assert fit.head.linear.weight.equal(in_memory.head.linear.weight)
    scores = [head_scores(fit.head, some, batch_size=32, device=CPU) for some in (features, rows)]
    assert scores[0].equal(scores[1])


def test_a_constant_feature_is_harmless():
    features, labels = _blobs(90, 0)
    features[:, 5] = 4.0
    fit = _fit(_linear(features), (features, labels), (features, labels), _settings())
    assert head_scores(fit.head, features, batch_size=90, device=CPU).isfinite().all()


def test_attention_finds_the_token_that_knows():
    # One token of 6, at any place, is marked by its last channel and holds the class; the mean of
    # the others is noise as large.
    generator = torch.Generator().manual_seed(0)

    def tokens(num_rows: int):
        labels = torch.arange(num_rows) % 3
        values = torch.randn(num_rows, 6, 16, generator=generator)
        values[..., -1] = 0
        place = torch.randint(0, 6, (num_rows,), generator=generator)
        marked = torch.zeros(num_rows, 16)
        marked[torch.arange(num_rows), labels] = 4.0
        marked[:, -1] = 4.0
        values[torch.arange(num_rows), place] = marked
        return values.half(), labels

    train, test = tokens(600), tokens(120)
    settings = _settings(optimizer="adamw", learning_rates=(0.01,), epochs=20)
    fit = _fit(lambda: AttentiveHead(16, 3, 2), train, test, settings)
    assert fit.validation_top1[0.01] == 100.0


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match=r"PROBE\.NUM_HEADS .*\b3\b"):
        AttentiveHead(16, 3, 3)


def test_a_head_that_diverges_is_not_chosen_and_is_named():
    train, test = _blobs(300, 0), _blobs(90, 1)
    fit = _fit(_linear(train[0]), train, test, _settings(learning_rates=(0.5, 1e39), epochs=3))
    assert fit.diverged == (1e39,)
    assert (fit.learning_rate, set(fit.validation_top1)) == (0.5, {0.5})
    alone = _fit(_linear(train[0]), train, test, _settings(learning_rates=(0.5,), epochs=3))
    assert alone.diverged == ()
    assert torch.allclose(alone.head.linear.weight, fit.head.linear.weight)


def test_heads_that_all_diverge_are_an_error():
    train = _blobs(300, 0)
    with pytest.raises(ValueError, match=r"PROBE\.LEARNING_RATES: .* 1e\+39, 1.2e\+39"):
        _fit(_linear(train[0]), train, train, _settings(learning_rates=(1.2e39, 1e39), epochs=3))


def test_scores_that_are_not_finite_are_a_divergence():
    # One step, whose loss is that of the first weights: only the scores after it tell.
    train = _blobs(60, 0)
    settings = _settings(learning_rates=(0.5, 1e39), epochs=1)
    assert _fit(_linear(train[0]), train, train, settings).diverged == (1e39,)


def test_training_needs_rows():
    features, labels = _blobs(9, 0)
    with pytest.raises(ValueError, match="got 9 and 0"):
        _fit(_linear(features), (features, labels), (features[:0], labels[:0]), _settings())


def test_the_callers_random_state_is_untouched():
    features, labels = _blobs(30, 0)
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    _fit(_linear(features), (features, labels), (features, labels), _settings(epochs=1))
    assert torch.random.get_rng_state().equal(before)
