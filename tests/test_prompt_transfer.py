"""Prompts attacked with one set and read with another: the attack against PGD on a classifier of those prompts, and its layout."""

import pytest
import torch
from linear_model import linear_classifier, noise, samples

import robustcal
from robustcal import api
from robustcal.report.prompt_transfer import prompt_transfer_tables
from robustcal.report.report import gather, text_report
from robustcal.sweep.meter import Meter
from robustcal.sweep.run import make_attack
from robustcal.types import Threat, UserError

NAMES, OWN, OTHER = ("circle", "square", "star"), "This is a photo of a {}", "a red {}"
THREAT = Threat(4 / 255)
CARD = "This is a photo of the digit {}"  # of the card of `digits`


@pytest.fixture(scope="module")
def model():
    return robustcal.load_model("tiny-clip")


@pytest.fixture(scope="module")
def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(4, 3, 32, 32, generator=generator), torch.arange(4) % 3


@pytest.mark.parametrize("template, texts", [(OTHER, (OTHER,)), (f"{OTHER}|{OWN}", (OTHER, OWN)), (OWN, (OWN,))])
def test_it_is_pgd_on_the_classifier_that_those_prompts_make(model, batch, template, texts):
    images, labels = batch
    deployed, crafted = model.classifier(NAMES, (OWN,)), model.classifier(NAMES, texts)
    found = make_attack(f"reprompted:template={template}:steps=3")(deployed, images, labels, THREAT, noise(4))
    wanted = make_attack("pgd:steps=3")(crafted, images, labels, THREAT, noise(4))
    assert torch.equal(found, wanted)


def test_its_passes_are_counted(model, batch):
    meters = [Meter(model.classifier(NAMES, (OWN,)), 4) for _ in range(2)]
    for meter, spec in zip(meters, (f"reprompted:template={OTHER}:steps=3", "pgd:steps=3"), strict=True):
        make_attack(spec)(meter, *batch, THREAT, noise(4))
    for name in ("forwards", "backwards"):
        assert torch.equal(meters[0].counts[name], meters[1].counts[name]) and meters[0].counts[name].min() > 0


def test_without_prompts_it_is_pgd_and_behind_a_defence_it_is_refused(batch):
    images, labels, _ = samples(4)
    plain = [make_attack(spec)(linear_classifier(), images, labels, THREAT, noise(4)) for spec in ("reprompted:template={}", "pgd")]
    assert torch.equal(*plain)
    defended = robustcal.load_model("ttc:model=tiny-clip:steps=1").classifier(NAMES, (OWN,))
    with pytest.raises(UserError, match="behind a defence"):
        make_attack("reprompted:template={}")(defended, *batch, THREAT, noise(4))
    with pytest.raises(UserError, match="template 'a thing' has no {}"):
        make_attack("reprompted:template=a thing")(linear_classifier(), images, labels, THREAT, noise(4))


def test_the_layout_sets_it_beside_the_attack_under_the_prompts_that_read(tmp_path):
    attacks = ["clean", f"reprompted:template={CARD}:steps=3", "reprompted:template=the word for {}:steps=3"]
    run = api.bench(models="tiny-clip", attacks=attacks, datasets="digits", eps="2/255", limit=40, out=tmp_path, device="cpu", workers=1)
    results = gather([run.path], details=False)
    (table,) = prompt_transfer_tables(results)
    rows = {row.labels[-1]: row for row in table.rows}
    same, other = rows[CARD], rows["the word for {}"]
    assert {row.labels[2:4] for row in table.rows} == {("digits", CARD)} and all(entry.empty for entry in same.entries[2:])
    for place in (0, 1):
        assert other.entries[place + 2].value == pytest.approx(other.entries[place].value - same.entries[place].value)
    with pytest.raises(UserError, match="--attacks transfer:from=MODEL"):  # it is no other model's
        text_report(results, layout="transfer")
