"""What all objectives share: no look at neighbours, gradients where they belong, bf16 safety, clear errors."""

import re
from pathlib import Path

import pytest
import tiny_clip
import torch
import torch.nn.functional as F
from small_classifier import C, inner_of, make_case, run

from robustcal import registry
from robustcal.types import UserError

torch.set_num_threads(1)
SPECS = [
    "tecoa", "fare", "pmg-aft", "pmg-aft:released=true", "tga-zsr", "tga-zsr:normalise=tokens", "comp-tga", "ucat",
    "ucat:evidence=matched", "ucat:reference=student", "agft", "prob-kl-forward", "prob-kl-reverse",
    "dirichlet-kl-forward",
]  # fmt: skip
UNLABELLED = {"fare", "agft"}


@pytest.fixture
def case():
    return make_case()


@pytest.mark.parametrize("spec", SPECS)
def test_a_sample_does_not_see_its_neighbours(case, spec):
    whole = run(spec, case)
    student, teacher, clean, adversarial, labels = case
    for i in (0, 3):
        alone = run(spec, (student, teacher, clean[i : i + 1], adversarial[i : i + 1], labels[i : i + 1]))
        for name, value in alone.items():
            torch.testing.assert_close(value[0], whole[name][i], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("spec", SPECS)
def test_gradient_reaches_the_student_and_never_the_teacher(case, spec):
    student, teacher = case[:2]
    sum(run(spec, case).values()).mean().backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert student.pool.grad.abs().sum() > 0 and student.pool.grad.isfinite().all()
    assert (student.patch.grad is not None) == ("tga" in spec)


@pytest.mark.parametrize("spec", SPECS)
def test_labels_are_read_exactly_where_the_method_has_labels(case, spec):
    *rest, labels = case
    before, after = run(spec, case), run(spec, (*rest, (labels + 1) % C))
    same = all(torch.equal(before[name], after[name]) for name in before)
    assert same == (spec.split(":")[0] in UNLABELLED)


@pytest.mark.parametrize("spec,part", [("pmg-aft", "kl_clean"), ("ucat:reference=student", "dirichlet_kl")])
def test_gradient_flows_through_the_students_clean_prediction(case, spec, part):
    """Its own clean image moves the term, so an identical pair is a stationary point of value zero."""
    student, teacher, clean, adversarial, labels = case
    images = clean.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(run(spec, (student, teacher, images, adversarial, labels))[part].sum(), images)
    assert gradient.abs().sum() > 0
    assert float(run(spec, (student, teacher, clean, clean, labels))[part].detach().abs().max()) < 1e-12


@pytest.mark.parametrize(
    "spec,part",
    [("fare", "embedding"), ("agft", "soft_cross_entropy"), ("agft:scale=30", "soft_cross_entropy"),
     ("pmg-aft", "cross_entropy"), ("pmg-aft:released=true", "cross_entropy")],
)  # fmt: skip
def test_inner_attack_maximises_the_trained_term(case, spec, part):
    """Same value as the objective's own part, a gradient for the images, and none stored in either model."""
    student, teacher, _, adversarial, _ = case
    loss = inner_of(spec, case)
    images = adversarial.clone().requires_grad_()
    value = loss(images)
    torch.testing.assert_close(value, run(spec, case)[part], rtol=1e-12, atol=0)
    (gradient,) = torch.autograd.grad(value.sum(), images)
    assert gradient.abs().flatten(1).sum(1).gt(0).all()
    assert all(p.grad is None for model in (student, teacher) for p in model.parameters())


def test_objectives_without_inner_loss_leave_it_to_the_cross_entropy():
    for name in {spec.split(":")[0] for spec in SPECS} - {"fare", "agft", "pmg-aft"}:
        assert "inner" not in registry.objectives.get(name).meta


@pytest.mark.parametrize(
    "spec,message",
    [
        ("ucat:evidence=much", "published, matched or a number"),
        ("ucat:evidence=-1", "published, matched or a number"),
        ("ucat:reference=me", "teacher or student"),
        ("tga-zsr:distance=l3", "l2, l1 or cos"),
        ("tga-zsr:normalise=no", "channels or tokens"),
        ("ucat:taux=1", "did you mean 'tau'"),
    ],
)
def test_mistakes_are_named(case, spec, message):
    with pytest.raises(UserError, match=message):
        run(spec, case)


def test_attention_objectives_say_what_they_need(case):
    student, teacher, clean, adversarial, labels = case
    with pytest.raises(UserError, match="one class per image"):
        run("tga-zsr", (student, teacher, clean, adversarial, F.one_hot(labels, C).double()))
    del teacher.negative_head
    with pytest.raises(UserError, match="negative_head"):
        run("comp-tga", case)


def test_a_flat_attention_map_gives_finite_gradients(case):
    """All tokens alike (a blank image): min-max has nothing to stretch."""
    student, teacher, clean, _, labels = case
    blank = torch.full_like(clean, 0.5)
    parts = run("tga-zsr", (student, teacher, blank, blank, labels))
    sum(parts.values()).mean().backward()
    assert student.patch.grad.isfinite().all() and all(value.isfinite().all() for value in parts.values())


@pytest.fixture(scope="module", params=["vit", "resnet"])
def towers(request, tmp_path_factory):
    """(student, teacher) as robustcal makes them, from a randomly initialised CLIP."""
    folder = tiny_clip.write_model(tmp_path_factory.mktemp("clip") / request.param, tower=request.param)
    model = registry.models.build(f"open-clip:local-dir:{folder}")
    teacher = model.classifier(["red circle", "blue square", "green star"], ["a photo of a {}"])
    teacher.negative_head = model.text_head(teacher.classnames, ["not a photo of a {}"])
    student = teacher.replica()
    torch.manual_seed(3)
    for parameter in student.visual.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
        parameter.requires_grad_()
    return student, teacher


@pytest.mark.parametrize("spec", SPECS)
def test_autocast_lowers_the_tower_only(towers, spec):
    """Under bf16 autocast the parts are those of full-precision arithmetic on the same low-precision embeddings."""
    student, teacher = towers
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(4, 3, 32, 32, generator=generator)
    adversarial = (clean + 0.02 * torch.randn(clean.shape, generator=generator)).clamp(0, 1)
    labels = torch.tensor([0, 1, 2, 1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lowered = run(spec, (student, teacher, clean, adversarial, labels))
        low_embedding = student.embed(clean)
    assert low_embedding.dtype == torch.bfloat16
    expected = run(spec, (lower(student), lower(teacher), clean, adversarial, labels))
    for name, value in lowered.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, expected[name], rtol=2e-4, atol=1e-6)


def lower(classifier):
    """A copy whose tower alone runs in bf16; its outputs are widened at once, so that all after it is float32."""
    copy = classifier.replica()
    for method in ("embed", "tokens"):
        setattr(copy, method, widened(getattr(copy, method)))
    return copy


def widened(method):
    def call(images):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return method(images).float()

    return call


# -- the documentation ----------------------------------------------------------------------------------------------


def documented_blocks():
    page = Path(__file__).parents[1] / "docs" / "objectives.md"
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


def test_the_page_prints_what_it_says(capsys):
    exec(documented_blocks()[0], {})
    assert capsys.readouterr().out == "10 13.7\n200 273.5\n1000 1367.4\n"


def test_the_example_of_the_page_is_a_working_plugin(case, tmp_path):
    path = tmp_path / "ridge.py"
    path.write_text(documented_blocks()[1])
    registry.load_plugin_file(path)
    try:
        parts = run("ridge:weight=0.1", case)
        assert set(parts) == {"cross_entropy", "ridge"} and parts["ridge"].shape == (len(case[2]),)
        assert torch.equal(parts["cross_entropy"], run("tecoa", case)["cross_entropy"])
    finally:
        del registry.objectives.plugins["ridge"]
