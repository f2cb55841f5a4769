"""The registry of figures against scikit-learn, and against values worked out by hand."""

import subprocess
import sys

import numpy as np
import pytest
import sklearn.metrics as reference

from cnnexp.metrics.names import FIGURE_NAMES, rises
from cnnexp.metrics.registry import FIGURES, Table, WeightedTable, answers, class_figures, figures


def table(classes: int, seed: int, images: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities that are better than chance; of every fourth table a third of the classes is absent."""
    rng = np.random.default_rng([classes, seed])
    count = images or int(rng.integers(8, 300))
    present = np.arange(classes) if seed % 4 else rng.choice(classes, max(1, 2 * classes // 3), replace=False)
    labels = rng.choice(present, count)
    scores = rng.normal(size=(count, classes))
    scores[np.arange(count), labels] += rng.uniform(0, 3)
    if seed % 4 == 0:
        scores[:, rng.integers(classes)] = -30  # a class that is never answered
    if seed % 3 == 0:
        scores = np.round(scores)  # with ties
    exponents = np.exp(scores - scores.max(axis=1, keepdims=True))
    return labels, exponents / exponents.sum(axis=1, keepdims=True)


@pytest.mark.filterwarnings("ignore:.*(y_pred contains classes|A single label|is ill-defined|do not sum to one)")
@pytest.mark.parametrize("classes", [2, 3, 136])
def test_figures_equal_scikit_learn(classes: int) -> None:
    for seed in range(40 if classes < 100 else 5):
        labels, probabilities = table(classes, seed)
        answer, every = probabilities.argmax(axis=1), np.arange(classes)
        expected = {
            "acc": reference.accuracy_score(labels, answer),
            "balanced_acc": reference.balanced_accuracy_score(labels, answer),
            "mcc": reference.matthews_corrcoef(labels, answer),
            "log_loss": reference.log_loss(labels, np.clip(probabilities, 1e-7, 1 - 1e-7), labels=every),
            "brier": reference.brier_score_loss(labels, probabilities, labels=every, scale_by_half=classes == 2),
        }
        for name in ("precision", "recall", "f1"):
            function = getattr(reference, f"{name}_score")
            expected[f"{name}_macro"] = function(labels, answer, average="macro", zero_division=0)
        if classes > 5 and seed % 3:  # of equal probabilities scikit-learn takes the last first
            expected["top5_acc"] = reference.top_k_accuracy_score(labels, probabilities, k=5, labels=every)
        curves = [k for k in every[1 if classes == 2 else 0 :] if 0 < (labels == k).sum() < len(labels)]
        if curves:
            areas = (reference.roc_auc_score, reference.average_precision_score)
            for name, function in zip(("roc_auc", "average_precision"), areas, strict=True):
                expected[name] = np.mean([function(labels == k, probabilities[:, k]) for k in curves])
        found = figures(Table(labels, probabilities))
        assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6), seed
        assert set(found) - set(expected) <= {"ece", "top5_acc"}
        of_class = class_figures(labels, answers(probabilities), probabilities.shape[1])
        parts = reference.precision_recall_fscore_support(labels, answer, labels=every, zero_division=0)
        for name, values in zip(("precision", "recall", "f1", "support"), parts, strict=True):
            np.testing.assert_allclose(of_class[name], values, atol=1e-12)


def test_figures_by_hand() -> None:
    # cat cat cat dog; answered cat cat dog dog
    labels = np.array([0, 0, 0, 1])
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.3, 0.7]])
    found = figures(Table(labels, probabilities))
    assert found["acc"] == 0.75
    assert found["balanced_acc"] == found["recall_macro"] == pytest.approx((2 / 3 + 1) / 2)
    assert found["precision_macro"] == pytest.approx((1 + 1 / 2) / 2)
    assert found["f1_macro"] == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert found["mcc"] == pytest.approx((2 * 1 - 1 * 0) / np.sqrt(3 * 1 * 2 * 2))  # TP TN - FP FN
    assert found["roc_auc"] == found["average_precision"] == 1
    assert found["log_loss"] == pytest.approx(-np.log([0.9, 0.8, 0.4, 0.7]).mean())
    assert found["brier"] == pytest.approx((0.01 + 0.04 + 0.36 + 0.09) / 4)
    assert found["ece"] == pytest.approx((0.1 + 0.2 + 0.6 + 0.3) / 4)  # one image a bin of 1/15
    assert "top5_acc" not in found, "of two classes every image is among the five most probable"


def test_top_five_by_hand() -> None:
    rows = np.array([[0.3, 0.2, 0.2, 0.1, 0.1, 0.1, 0.0]] * 3)
    assert figures(Table(np.array([0, 4, 6]), rows))["top5_acc"] == pytest.approx(2 / 3)
    # of equal probabilities the first five classes, as the answer is the first
    assert figures(Table(np.arange(7), np.full((7, 7), 1 / 7)))["top5_acc"] == pytest.approx(5 / 7)


def test_directions_and_meanings() -> None:
    assert tuple(FIGURES) == FIGURE_NAMES
    falling = {"log_loss", "brier", "ece"}
    for name, figure in FIGURES.items():
        assert figure.name == name and figure.meaning and "\n" not in figure.meaning
        assert all(rises(place + name) == figure.rises == (name not in falling) for place in ("val/", "final/val_"))
    assert rises("val/piece") and rises("test/lossless") and not rises("val/my_ece") and not rises("ece")
    assert rises("val/acc") and rises("train/acc") and not rises("val/loss") and not rises("train/loss")


def test_there_are_no_figures_of_what_is_not_finite() -> None:
    assert figures(Table(np.array([0, 1]), np.array([[0.5, 0.5], [np.nan, 0.5]]))) == {}


def test_a_resample_is_the_table_of_its_images() -> None:
    rng = np.random.default_rng(5)
    for classes in (2, 3, 8):
        labels, probabilities = table(classes, 3, images=60)
        drawn = rng.integers(60, size=(7, 60))
        weights = np.stack([np.bincount(row, minlength=60) for row in drawn], axis=1).astype(np.float32)
        for name, figure in FIGURES.items():
            if figure.resampled is None:
                assert name == "ece"
                continue
            expected = [figure.function(labels[row], probabilities[row]) for row in drawn]
            found = figure.resampled(WeightedTable(labels, probabilities, weights))
            np.testing.assert_allclose(found, expected, rtol=2e-6, err_msg=f"{name} of {classes} classes")


def test_the_names_are_checked_without_numpy() -> None:
    code = "import sys, cnnexp.metrics.names; print(*(set(sys.modules) & {'numpy', 'sklearn', 'scipy'}))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"
