"""Every objective against its closed form, written out independently in numpy, on a small float64 classifier."""

import math

import mpmath
import numpy as np
import pytest
import torch
from small_classifier import F64, GRID, SIDE, N, make_case, run
from tiny_clip import write_model

from robustcal.registry import models, objectives

torch.set_num_threads(1)
#: lambda of UCAT: exp(softplus(z)) = exp(ln(1 + e^z)) = 1 + e^z.
PUBLISHED = 1e5 / (1 + math.exp(2 / 0.07))


@pytest.fixture
def case():
    return make_case()


def array(tensor):
    return tensor.detach().numpy().astype(np.float64)


def np_cosines(model, images):
    embedding = array(model.embed(images))
    return embedding / np.sqrt((embedding**2).sum(1, keepdims=True)) @ array(model.head).T


def np_log_softmax(logits):
    top = logits.max(1, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(1, keepdims=True))


def np_ce(logits, labels):
    return -np_log_softmax(logits)[np.arange(N), array(labels).astype(int)]


def np_kl(log_p, log_q):
    return (np.exp(log_p) * (log_p - log_q)).sum(1)


def exact_dirichlet_kl(cosines_a, cosines_b, tau):
    """Textbook closed form at 60 digits with alpha = exp((c + 1) / tau), per row."""
    rows = []
    with mpmath.workdps(60):
        for row_a, row_b in zip(cosines_a, cosines_b):
            a = [mpmath.exp((mpmath.mpf(float(c)) + 1) / mpmath.mpf(tau)) for c in row_a]
            b = [mpmath.exp((mpmath.mpf(float(c)) + 1) / mpmath.mpf(tau)) for c in row_b]
            a0, b0, g, psi = mpmath.fsum(a), mpmath.fsum(b), mpmath.loggamma, mpmath.digamma
            kl = g(a0) - g(b0)
            for x, y in zip(a, b):
                kl += g(y) - g(x) + (x - y) * (psi(x) - psi(a0))
            rows.append(float(kl))
    return np.array(rows)


def np_map(model, images, text, side, over_tokens=False):
    """Attention map of one text per sample: scores, min-max, bilinear resize at pixel centres, written as loops."""
    tokens = array(model.tokens(images))
    if over_tokens:
        every = np.concatenate([array(model.embed(images))[:, None], tokens], 1)
        tokens = (every / np.sqrt((every**2).sum(1, keepdims=True)))[:, 1:]
    else:
        tokens = tokens / np.sqrt((tokens**2).sum(2, keepdims=True))
    scores = np.einsum("ntd,nd->nt", tokens, text)
    scores = (scores - scores.min(1, keepdims=True)) / (scores.max(1) - scores.min(1))[:, None]
    small, large = scores.reshape(-1, GRID, GRID), np.zeros((len(scores), side, side))
    for i in range(side):
        for j in range(side):
            y, x = (max((k + 0.5) * GRID / side - 0.5, 0) for k in (i, j))
            top, left = int(y), int(x)
            low, right = min(top + 1, GRID - 1), min(left + 1, GRID - 1)
            y, x = y - top, x - left
            large[:, i, j] = (1 - y) * ((1 - x) * small[:, top, left] + x * small[:, top, right])
            large[:, i, j] += y * ((1 - x) * small[:, low, left] + x * small[:, low, right])
    return large.reshape(len(scores), -1)


def agree(parts, expected):
    assert set(parts) == set(expected)
    for name, value in parts.items():
        assert value.shape == (N,) and value.dtype == F64
        np.testing.assert_allclose(array(value), expected[name], rtol=1e-9, atol=1e-12, err_msg=name)


def test_tecoa(case):
    student, _, _, adversarial, labels = case
    agree(run("tecoa", case), {"cross_entropy": np_ce(20 * np_cosines(student, adversarial), labels)})


def test_fare(case):
    student, teacher, clean, adversarial, _ = case
    squared = ((array(student.embed(adversarial)) - array(teacher.embed(clean))) ** 2).sum(1)
    agree(run("fare", case), {"embedding": squared})


@pytest.mark.parametrize(
    "spec,scale,general,own",
    [
        ("pmg-aft", 20, 1, 1),
        ("pmg-aft:general=0.5:cleanness=2", 20, 0.5, 2),
        ("pmg-aft:released=true", 1, 256, 256),
        ("pmg-aft:released=true:batch=8:general=3", 1, 24, 8),
    ],
)
def test_pmg_aft(case, spec, scale, general, own):
    student, teacher, clean, adversarial, labels = case
    attacked = np_log_softmax(scale * np_cosines(student, adversarial))
    original = np_log_softmax(scale * np_cosines(teacher, adversarial))
    clean_own = np_log_softmax(scale * np_cosines(student, clean))
    agree(
        run(spec, case),
        {
            "cross_entropy": np_ce(attacked, labels),
            "kl_original": general * np_kl(original, attacked),
            "kl_clean": own * np_kl(clean_own, attacked),
        },
    )


@pytest.mark.parametrize("name,forward", [("ucat", False), ("dirichlet-kl-forward", True)])
@pytest.mark.parametrize(
    "options,tau,weight,reference",
    [
        ("", 0.07, 1e5, "teacher"),
        (":tau=0.5:weight=30", 0.5, 30, "teacher"),
        (":reference=student", 0.07, 1e5, "student"),
    ],
)
def test_dirichlet_objectives(case, name, forward, options, tau, weight, reference):
    student, teacher, clean, adversarial, labels = case
    attacked = np_cosines(student, adversarial)
    aim = np_cosines(teacher if reference == "teacher" else student, clean)
    divergence = exact_dirichlet_kl(*((aim, attacked) if forward else (attacked, aim)), tau)
    factor = weight / (1 + math.exp(2 / tau))
    expected = {"cross_entropy": np_ce(20 * attacked, labels), "dirichlet_kl": factor * divergence}
    agree(run(name + options, case), expected)


def test_strength_published_and_matched(case):
    assert pytest.approx(3.9047e-8, rel=2e-5) == PUBLISHED
    _, teacher, clean, _, _ = case
    evidence = np.exp((np_cosines(teacher, clean) + 1) / 0.07).sum(1)
    kl = array(run("ucat", case)["dirichlet_kl"]) / PUBLISHED
    np.testing.assert_allclose(array(run("ucat:evidence=matched", case)["dirichlet_kl"]), 270 / evidence * kl, 1e-6)
    np.testing.assert_allclose(
        array(run("ucat:evidence=matched:weight=2e5", case)["dirichlet_kl"]), 540 / evidence * kl, 1e-6
    )
    np.testing.assert_allclose(array(run("ucat:evidence=2.5e9", case)["dirichlet_kl"]), 270 / 2.5e9 * kl, 1e-6)


def test_published_regulariser_is_an_evidence_weighted_categorical_kl(case):
    student, teacher, clean, adversarial, _ = case
    log_q = np_log_softmax(np_cosines(teacher, clean) / 0.07)
    log_p = np_log_softmax(np_cosines(student, adversarial) / 0.07)
    evidence = np.exp((np_cosines(teacher, clean) + 1) / 0.07).sum(1)
    identity = PUBLISHED * evidence * np_kl(log_q, log_p)
    np.testing.assert_allclose(array(run("ucat", case)["dirichlet_kl"]), identity, rtol=1e-6)
    matched = run("ucat:evidence=matched", case)["dirichlet_kl"]
    np.testing.assert_allclose(array(matched), 270 * np_kl(log_q, log_p), rtol=1e-6)


@pytest.mark.parametrize("distance", ["l2", "l1", "cos"])
@pytest.mark.parametrize("normalise", ["channels", "tokens"])
@pytest.mark.parametrize("side", [None, 7])
@pytest.mark.parametrize("name", ["tga-zsr", "comp-tga"])
def test_attention_objectives(case, name, distance, normalise, side):
    student, teacher, clean, adversarial, labels = case
    texts = array(student.head)[labels.numpy()], array(teacher.negative_head)[labels.numpy()]

    def full_map(model, images):
        first, second = (np_map(model, images, text, side or SIDE, normalise == "tokens") for text in texts)
        return first if name == "tga-zsr" else first * (1 - second)

    def measure(a, b):
        if distance == "l2":
            return np.sqrt(((a - b) ** 2).sum(1))
        if distance == "l1":
            return np.abs(a - b).sum(1) / a.shape[1]
        return 1 - (a * b).sum(1) / np.sqrt((a**2).sum(1) * (b**2).sum(1))

    refine, constrain = (0.08, 0.05) if name == "tga-zsr" else (0.10, 0.07)
    original = full_map(teacher, clean)
    spec = f"{name}:distance={distance}:normalise={normalise}" + (f":resolution={side}" if side else "")
    agree(
        run(spec, case),
        {
            "cross_entropy": np_ce(20 * np_cosines(student, adversarial), labels),
            "attention_refine": refine * measure(full_map(student, adversarial), original),
            "attention_constrain": constrain * measure(full_map(student, clean), original),
        },
    )


@pytest.mark.parametrize("name", ["tga-zsr", "comp-tga"])
@pytest.mark.parametrize("distance", ["l2", "l1"])
def test_identical_student_and_teacher_have_no_attention_gradient(tmp_path, name, distance):
    """The first training step: both attend by one path, so that a norm that is not squared sees 0 and not rounding."""
    model = models.build(f"open-clip:local-dir:{write_model(tmp_path / 'vit', tower='vit')}")
    teacher = model.classifier(["red circle", "blue square", "green star"], ["a photo of a {}"])
    teacher.negative_head = teacher.head.roll(1, 0)
    student = teacher.replica().requires_grad_(True)
    clean, labels = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1])
    inference = torch.backends.mha.get_fastpath_enabled()
    parts = objectives.get(name).make(student, teacher, clean, clean, labels, distance=distance)
    assert torch.backends.mha.get_fastpath_enabled() == inference
    for part in ("attention_refine", "attention_constrain"):
        assert (parts[part] == 0).all()
        slopes = torch.autograd.grad(parts[part].sum(), student.visual.parameters(), retain_graph=True, allow_unused=True)
        assert all((slope == 0).all() for slope in slopes if slope is not None)
    other = objectives.get(name).make(student, teacher, clean, clean.roll(1, 0), labels, distance=distance)
    assert (other["attention_refine"] > 0).all()


@pytest.mark.parametrize("spec,scale,teacher_scale", [("agft", 180, 72), ("agft:scale=50:ratio=2", 50, 100)])
def test_agft(case, spec, scale, teacher_scale):
    student, teacher, clean, adversarial, _ = case
    target = np.exp(np_log_softmax(teacher_scale * np_cosines(teacher, clean)))
    attacked = np_log_softmax(scale * np_cosines(student, adversarial))
    agree(run(spec, case), {"soft_cross_entropy": -(target * attacked).sum(1)})


@pytest.mark.parametrize("name", ["prob-kl-forward", "prob-kl-reverse"])
@pytest.mark.parametrize(
    "options,weight,reference", [("", 1, "teacher"), (":weight=3:reference=student", 3, "student")]
)
def test_probability_ablations(case, name, options, weight, reference):
    student, teacher, clean, adversarial, labels = case
    attacked = np_log_softmax(20 * np_cosines(student, adversarial))
    aim = np_log_softmax(20 * np_cosines(teacher if reference == "teacher" else student, clean))
    divergence = np_kl(aim, attacked) if name.endswith("forward") else np_kl(attacked, aim)
    expected = {"cross_entropy": np_ce(attacked, labels), "probability_kl": weight * divergence}
    agree(run(name + options, case), expected)
