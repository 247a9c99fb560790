"""Own attacks against short reference loops; their return rules, parameters and errors."""

from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F
from linear_model import noise, samples
from robust_net import digits_net

from robustcal import registry
from robustcal.attacks import losses
from robustcal.attacks.balls import L2Ball, LinfBall, keep_better
from robustcal.sweep.plan import attack_meta
from robustcal.sweep.run import make_attack
from robustcal.types import Threat, UserError

EPS = 0.1


@pytest.fixture(scope="module")
def net():
    classifier, images, labels = digits_net()
    return classifier, images[:12], labels[:12]


def run(spec, net, eps=EPS, **fields):
    classifier, images, labels = net
    return make_attack(spec)(classifier, images, labels, Threat(eps, **fields), noise(len(images)))


def test_a_step_is_written_like_a_radius():
    steps = {text: registry.attacks.spec(f"pgd:step={text}").params["step"] for text in ("0.5/255", "1/510", "0.1/255", "1/255")}
    assert steps == {"0.5/255": 0.5 / 255, "1/510": 1 / 510, "0.1/255": pytest.approx(0.1 / 255), "1/255": 1 / 255}
    for text in ("1/0", "1/", "/255", "1/2/3", "a/255", "1/inf"):
        with pytest.raises(UserError, match=f"step={text}"):
            registry.attacks.spec(f"pgd:step={text}")


# -- reference loops -----------------------------------------------------------------------------------------------


def test_pgd_is_the_ten_line_loop_bit_for_bit(net):
    classifier, x, y = net
    low, high = (x - EPS).clamp(min=0), (x + EPS).clamp(max=1)
    z = (x + noise(len(x)).uniform(x.shape[1:], -EPS, EPS)).clamp(low, high)
    for _ in range(7):
        z.requires_grad_(True)
        (g,) = torch.autograd.grad(F.cross_entropy(classifier(z), y, reduction="sum"), z)
        z = (z.detach() + 0.02 * g.sign()).clamp(low, high)
    assert torch.equal(run("pgd:steps=7:step=0.02:return=last", net), z)


def test_pgd_best_is_the_highest_loss_iterate_of_the_loop(net):
    classifier, x, y = net
    low, high = (x - EPS).clamp(min=0), (x + EPS).clamp(max=1)
    z = (x + noise(len(x)).uniform(x.shape[1:], -EPS, EPS)).clamp(low, high)
    iterates = [z]
    for _ in range(7):
        z = z.detach().requires_grad_(True)
        (g,) = torch.autograd.grad(F.cross_entropy(classifier(z), y, reduction="sum"), z)
        z = (z.detach() + EPS * g.sign()).clamp(low, high)
        iterates.append(z)
    with torch.no_grad():
        scores = torch.stack([F.cross_entropy(classifier(z), y, reduction="none") for z in iterates])
    assert (scores.argmax(0) < 7).any(), "full steps should overshoot for some sample"
    expected = torch.stack(iterates)[scores.argmax(0), torch.arange(len(x))]
    assert torch.equal(run(f"pgd:steps=7:step={EPS}", net), expected)


def test_pgd_l2_is_the_reference_loop(net):
    classifier, x, y = net
    eps = 0.5

    def project(z):
        change = z - x
        length = change.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        return (x + change * (eps / length.clamp(min=1e-12)).clamp(max=1)).clamp(0, 1)

    z = x
    for _ in range(5):
        z = z.detach().requires_grad_(True)
        (g,) = torch.autograd.grad(F.cross_entropy(classifier(z), y, reduction="sum"), z)
        z = project(z.detach() + 0.2 * g / g.flatten(1).norm(dim=1).view(-1, 1, 1, 1))
    found = run("pgd:norm=l2:steps=5:step=0.2:start=clean:return=last", net, eps=eps)
    assert torch.allclose(found, z, atol=1e-6)


def test_momentum_accumulates_normalised_gradients(net):
    classifier, x, y = net
    low, high = (x - EPS).clamp(min=0), (x + EPS).clamp(max=1)
    z, velocity = x, 0
    for _ in range(4):
        z = z.detach().requires_grad_(True)
        (g,) = torch.autograd.grad(F.cross_entropy(classifier(z), y, reduction="sum"), z)
        velocity = 0.9 * velocity + g / g.abs().mean((1, 2, 3), keepdim=True)
        z = (z.detach() + 0.03 * velocity.sign()).clamp(low, high)
    assert torch.equal(run("pgd:steps=4:step=0.03:momentum=0.9:start=clean:return=last", net), z)


@pytest.mark.parametrize("start", ["uniform", "clean"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_first_success_is_that_of_a_loop_over_samples_and_steps(net, start, momentum):
    """Each image by itself: up to two starts, and the first iterate that is misclassified; else the last there was."""
    classifier, images, labels = net
    draw = noise(len(images))
    starts = [draw.uniform(images.shape[1:], -EPS / 2, EPS / 2) if start == "uniform" else 0 * images for _ in range(2)]
    expected, outcomes = [], []
    for row, (image, y) in enumerate(zip(images, labels)):
        low, high = (image - EPS / 2).clamp(min=0), (image + EPS / 2).clamp(max=1)
        seen = []
        for first in starts:
            x, velocity = (image + first[row]).clamp(low, high), 0
            for step in range(7):
                seen.append((x, bool(classifier(x[None]).argmax(1) != y)))
                if seen[-1][1] or step == 6:
                    break
                z = x[None].requires_grad_(True)
                (g,) = torch.autograd.grad(F.cross_entropy(classifier(z), y[None]), z)
                velocity = momentum * velocity + (g[0] / g.abs().mean() if momentum else g[0])
                x = (x + 0.01 * velocity.sign()).clamp(low, high)
            if seen[-1][1]:
                break
        expected.append(seen[-1][0].detach())
        outcomes.append((len(seen), seen[-1][1]))
    assert len(set(outcomes)) > 2, "samples must fall at different steps, or not at all"
    spec = f"pgd:steps=6:step=0.01:restarts=2:start={start}:momentum={momentum}:return=success-else-last"
    found = run(spec, net, eps=EPS / 2)
    assert torch.allclose(found, torch.stack(expected), atol=1e-6)


def test_stopping_at_success_breaks_as_many_as_any_iterate_of_the_same_run(net):
    """Its accuracy is that over all iterates; what stands comes back as the last iterate, and costs no more passes."""
    classifier, images, labels = net
    with torch.no_grad():
        visited = [run(f"pgd:steps={k}:step=0.02:start=clean:return=last", net) for k in range(1, 9)]
        broken = torch.stack([classifier(x).argmax(1) != labels for x in [images, *visited]]).any(0)
        found = run("pgd:steps=8:step=0.02:start=clean:return=success-else-last", net)
        assert torch.equal(classifier(found).argmax(1) != labels, broken) and broken.any() and not broken.all()
    assert torch.allclose(found[~broken], visited[-1][~broken], atol=1e-6)


@pytest.mark.parametrize("restarts", [1, 3])
def test_composite_rests_at_its_first_success(net, restarts):
    """The Linf part alone against a loop over the same steps, which are those of pgd."""
    classifier, images, labels = net
    spec = f"composite:components=linf:steps=5:restarts={restarts}"
    draw = noise(len(images))
    first, fooled = None, torch.zeros(len(images), dtype=torch.bool)
    for _ in range(restarts):
        draw.uniform((0,), -1, 1)
        delta, resting = draw.uniform(images.shape[1:], -EPS, EPS), torch.zeros_like(fooled)
        for step in range(6):
            delta = delta.detach().requires_grad_(True)
            logits = classifier((images + delta).clamp(0, 1))
            resting |= logits.argmax(1) != labels
            (g,) = torch.autograd.grad(F.cross_entropy(logits, labels, reduction="sum"), delta)
            if step < 5:
                moved = (delta + EPS / 2 * g.sign()).clamp(-EPS, EPS)
                delta = torch.where(resting.view(-1, 1, 1, 1), delta, moved)
        x, keep = (images + delta.detach()).clamp(0, 1), resting & ~fooled
        first = x if first is None else torch.where(keep.view(-1, 1, 1, 1), x, first)
        fooled |= resting
    assert fooled.any()
    assert torch.allclose(run(f"{spec}:return=success-else-last", net), first, atol=1e-6)


def test_apgd_is_a_reference_of_their_algorithm_1(net):
    """A plain per-sample transcription of the update, checkpoints and step halving."""
    classifier, images, labels = net
    steps = 40
    first = noise(len(images)).uniform(images.shape[1:], -1, 1)
    for row in range(4):
        x0, y = images[row : row + 1], labels[row : row + 1]
        low, high = (x0 - EPS).clamp(min=0), (x0 + EPS).clamp(max=1)

        def look(z):
            z = z.detach().requires_grad_(True)
            value = F.cross_entropy(classifier(z), y)
            return torch.autograd.grad(value, z)[0], value.item()

        u = first[row : row + 1]
        x = (x0 + EPS * u / u.abs().max()).clamp(low, high)
        g, value = look(x)
        best, history, eta, old = (value, x, g), [0.0], 2 * EPS, x  # the first comparison is with 0
        checkpoints, window = [0], int(0.22 * steps)
        while checkpoints[-1] + window <= steps:
            checkpoints.append(checkpoints[-1] + window)
            window = max(window - int(0.03 * steps), int(0.06 * steps))
        halved, best_then = True, value
        for k in range(1, steps + 1):
            z = (x + eta * g.sign()).clamp(low, high)
            a = 0.75 if k > 1 else 1.0
            x, old = (x + a * (z - x) + (1 - a) * (x - old)).clamp(low, high), x
            g, value = look(x)
            history.append(value)
            if value > best[0]:
                best = (value, x, g)
            if k in checkpoints:
                width = k - checkpoints[checkpoints.index(k) - 1]
                rises = sum(history[i] > history[i - 1] for i in range(k - width + 1, k + 1))
                stalled = rises <= 0.75 * width or (not halved and best[0] <= best_then)
                halved, best_then = stalled, best[0]
                if stalled:
                    eta, x, g = eta / 2, best[1], best[2]
        found = run(f"apgd:steps={steps}", net)[row : row + 1]
        reached = F.cross_entropy(classifier(found), y).item()
        assert reached == pytest.approx(best[0], rel=1e-3)


def test_square_windows_and_schedule():
    from robustcal.attacks.square import _window, share

    assert [share(0.8, q) for q in (0, 10, 11, 51, 201, 8001)] == [0.8, 0.8, 0.4, 0.2, 0.1, 0.8 / 512]
    images = torch.zeros(2, 3, 10, 10)
    inside = _window(images, torch.tensor([[0.0, 0.0], [0.999, 0.999]]), 0.09)
    assert inside.shape == (2, 1, 10, 10) and inside.sum((1, 2, 3)).tolist() == [9, 9]
    assert inside[0, 0, 0, 0] == 1 and inside[1, 0, 9, 9] == 1, "windows reach every corner"


# -- multi-label ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["pgd:loss=bce", "pgd", "pgd:loss=margin", "cw", "apgd:loss=bce", "square", "fgsm"])
def test_multi_label_attacks_raise_their_loss(net, spec):
    classifier, images, labels = net
    many = F.one_hot(labels, 10).float()
    many[:, 0] = 1
    loss = losses.margin if spec in ("cw", "square", "pgd:loss=margin") else losses.centred_bce
    adversarial = make_attack(spec if spec != "square" else "square:queries=100")(
        classifier, images, many, Threat(EPS), noise(len(images))
    )
    with torch.no_grad():
        before, after = loss(classifier(images), many), loss(classifier(adversarial), many)
    assert (after > before).all()


@pytest.mark.parametrize("spec", ["apgd:loss=targeted", "pgd:loss=dlr", "a3", "confidence", "autoattack"])
def test_attacks_for_one_label_say_so(net, spec):
    classifier, images, labels = net
    with pytest.raises(UserError, match="one label per image|multi-label"):
        make_attack(spec)(classifier, images, F.one_hot(labels, 10).float(), Threat(EPS), noise(len(images)))


# -- parameters and return rules -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec, hint",
    [
        ("pgd:loss=cee", "did you mean 'ce'"), ("pgd:return=first", "best, last"), ("pgd:steps=0", "1 or more"),
        ("pgd:norm=l7", "linf, l2"), ("confidence:goal=side", "down, up, max, random"), ("noise:draw=x", "corners"),
        ("composite:components=hue+tilt", "rotation"), ("square:return=last", "best, success-else-clean"),
        ("autoattack:standart", "standard"), ("torchattacks:DIFGMS", "DIFGSM"), ("torchattacks:LGV", "one by one"),
        ("torchattacks:FGSM:steps=3", "has no parameter 'steps'"),
        ("torchattacks:APGD:loss=foo:steps=1", "does not take steps=1 loss=foo"), ("torchattacks:FAB:norm=l1", "does not take norm=l1"), ("fgsm:start=here", "clean, uniform"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_with_the_alternative(net, spec, hint):
    with pytest.raises(UserError) as error:
        run(spec, net)
    assert hint in str(error.value) and "\n" not in str(error.value)


def test_transfer_needs_its_surrogate(net):
    plugin, arguments = registry.attacks.arguments(registry.attacks.spec("transfer:from=tiny-clip"))
    with pytest.raises(UserError, match="surrogate"):
        plugin.make(*net, Threat(EPS), noise(12), **arguments)


def test_transfer_never_queries_the_model_under_test(net):
    class Untouchable(torch.nn.Module):
        def forward(self, images):
            raise AssertionError("queried")

    classifier, images, labels = net
    attack = make_attack("transfer:from=other", lambda spec: classifier)
    found = attack(Untouchable(), images, labels, Threat(EPS), noise(len(images)))
    with torch.no_grad():
        assert (classifier(found).argmax(1) == labels).float().mean() < 0.5


def test_more_restarts_never_lower_the_loss(net):
    classifier, images, labels = net
    with torch.no_grad():
        found = [run(f"pgd:steps=3:restarts={n}", net) for n in (1, 4)]
        one, four = (F.cross_entropy(classifier(x), labels, reduction="none") for x in found)
    assert (four >= one).all() and (four > one).any()


@pytest.mark.parametrize("name", ["apgd:steps=20", "apgd:steps=20:loss=targeted", "square:queries=300"])
def test_success_else_clean_returns_one_or_the_other(net, name):
    classifier, images, labels = net
    found = run(f"{name}:return=success-else-clean", net, eps=0.04)
    with torch.no_grad():
        right = classifier(images).argmax(1) == labels
        fooled = classifier(found).argmax(1) != labels
    moved = (found != images).flatten(1).any(1)
    assert torch.equal(moved, fooled & right)
    assert moved.any() and not moved.all(), "the radius must split the samples for this test to mean anything"


def test_accuracy_only_follows_the_return_rule():
    borrowed = [("torchattacks:PGD", False), ("torchattacks:FAB", True)] if find_spec("torchattacks") else []
    for spec, expected in [*borrowed, ("apgd", False), ("apgd:return=success-else-clean", True), ("autoattack", True),
                           ("pgd:return=last", False), ("pgd:return=success-else-last", True),
                           ("composite:return=success-else-last", True), ("a3", True)]:  # fmt: skip
        meta = attack_meta(*registry.attacks.arguments(registry.attacks.spec(spec)))
        assert bool(meta.get("accuracy_only")) is expected, spec


def test_nan_losses_never_replace_numbers():
    a, b = torch.zeros(2, 1, 1, 1), torch.ones(2, 1, 1, 1)
    images, values = keep_better((a, torch.tensor([1.0, torch.nan])), b, torch.tensor([torch.nan, 0.5]))
    assert images.flatten().tolist() == [0.0, 1.0] and values.tolist() == [1.0, 0.5]


@pytest.mark.parametrize(
    "ball, size", [(LinfBall, lambda d: d.abs().amax((1, 2, 3))), (L2Ball, lambda d: d.flatten(1).norm(dim=1))]
)
def test_balls_contain_what_they_project(ball, size):
    images, _, _ = samples(20)
    part = ball(images, Threat(0.3))
    far = images + 3 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    for x in (part.project(far), part.random(noise(20))):
        assert (size(x - images) <= 0.3 + 1e-6).all() and x.min() >= 0 and x.max() <= 1
    assert torch.equal(part.project(images), images)
