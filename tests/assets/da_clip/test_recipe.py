"""DA-CLIP learns the dose of patients that it has not seen, and shuffled doses teach it none."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from physfed_ray.assets.base import Examples
from physfed_ray.assets.da_clip.network import DAClip
from physfed_ray.assets.da_clip.recipe import DAClipRecipe, reciprocal_doses, turned
from physfed_ray.assets.registry import RECIPES
from physfed_ray.ct.protocol import PRESETS
from physfed_ray.ct.scan import expect, measure, reconstruct
from physfed_ray.ct.simulation import Simulation
from physfed_ray.data.anatomy import REGIONS
from physfed_ray.data.grid import place
from physfed_ray.data.phantom import PhantomSource
from physfed_ray.device import torch_threads
from physfed_ray.errors import PhysFedError
from physfed_ray.fields import Batch
from physfed_ray.seeds import generator
from physfed_ray.window import normalise

PROTOCOL, WINDOW = PRESETS["paper-8"], (-1000, 2000)


def examples(images: torch.Tensor, dividers: list[float], patients: list[str]) -> Examples:
    """Return images (B, 1, n, n) as slices under doses of one scanner; a patient has one region."""
    names, nothing = list(REGIONS), torch.zeros(len(images), 1)
    regions = tuple(names[int(patient[-2:]) % len(names)] for patient in patients)
    return Examples(
        Batch(images, images, nothing, nothing, nothing, nothing, images.shape[-1]),
        tuple(replace(PROTOCOL, photons=PROTOCOL.photons / d) for d in dividers),
        tuple(patients),
        tuple(range(len(images))),
        ("",) * len(images),
        regions,
        WINDOW,
    )


def random_examples(dividers: list[float]) -> Examples:
    """Return random images, one for each dose."""
    images = torch.rand(len(dividers), 1, 16, 16, generator=torch.Generator().manual_seed(1))
    return examples(images, dividers, [f"phantom-{k:02d}" for k in range(len(dividers))])


def make(given: Examples, **settings: object) -> tuple[DAClipRecipe, DAClip]:
    """Return a recipe and a new small network."""
    recipe = DAClipRecipe(DAClipRecipe.Settings(**{"channels": 2, **settings}))
    torch.manual_seed(1)
    return recipe, recipe.network(recipe.constants([given], 1))


def test_the_recipe_says_what_it_is() -> None:
    recipe = RECIPES.find("da_clip")
    assert recipe is DAClipRecipe
    assert recipe.scanned
    assert all(field.description for field in recipe.Settings.model_fields.values())


def test_labels_are_logarithms_of_the_reciprocal_dose() -> None:
    given = random_examples([1, 2, 8])
    recipe, network = make(given)
    assert network.get_buffer("doses").tolist() == [0, 1, 3]
    assert recipe.labels(network, given).tolist() == pytest.approx([0, 1, 3])


def test_shuffled_labels_are_kept_by_each_slice() -> None:
    given = random_examples([1.0, 2.0, 8.0] * 10)
    recipe, network = make(given, labels="shuffled")
    labels = recipe.labels(network, given)
    some = given.rows([4, 2, 9])
    assert torch.equal(recipe.labels(network, some), labels[[4, 2, 9]])
    assert set(labels.tolist()) == {0, 1, 3}
    assert not torch.equal(labels, reciprocal_doses(network, given))


def test_nothing_is_learned_of_held_out_doses() -> None:
    given = random_examples([1, 3, 2, 5])
    recipe, network = make(given, held_out_doses=[3, 5])
    assert network.get_buffer("doses").tolist() == [0, 1]
    losses = []
    for part in (given, given.rows([0, 2])):
        torch.manual_seed(4)
        losses.append(recipe.loss(network, part, 0, 0)[0])
    assert torch.equal(*losses)
    with pytest.raises(PhysFedError, match="held-out doses alone"):
        recipe.loss(network, given.rows([1, 3]), 0, 0)
    assert {"dose_rank", "unseen_dose_rank"} == recipe.scores(network, [given]).keys()


def test_the_loss_is_the_weighted_sum_and_reaches_every_parameter() -> None:
    given = random_examples([1, 2, 4, 8, 1, 2])
    weights = {"dose_weight": 2.0, "anatomy_weight": 0.5, "text_weight": 3.0}
    recipe, network = make(given, **weights)
    loss, parts = recipe.loss(network, given, 0, 0)
    expected = 2 * parts["dose"] + 0.5 * parts["anatomy"] + 3 * parts["text"]
    torch.testing.assert_close(loss.detach(), expected)
    loss.backward()
    convolutions = {f"trunk.{k}.0.bias" for k in range(4)}  # batch normalisation takes them off
    for name, parameter in network.named_parameters():
        assert name in convolutions or (parameter.grad is not None and bool(parameter.grad.any()))


@pytest.mark.parametrize(
    ("dividers", "settings", "words"),
    [
        ([1, 1], {}, "there is only one"),
        ([1, 2, 3], {"held_out_doses": [2, 3]}, "fewer than two are left"),
    ],
)
def test_one_dose_is_refused(dividers: list[float], settings: dict, words: str) -> None:
    with pytest.raises(PhysFedError, match=words):
        make(random_examples(dividers), **settings)


def test_two_scanners_are_refused() -> None:
    given = random_examples([1, 2])
    other = replace(given, protocols=(PROTOCOL, PRESETS["paper-1"]))
    with pytest.raises(PhysFedError, match="differ in more than their photons"):
        make(other)


def test_views_are_turned_images() -> None:
    image = torch.arange(9.0).view(1, 1, 3, 3)
    views = {tuple(turned(image).flatten().tolist()) for _ in range(200)}
    assert len(views) == 8
    assert all(sorted(view) == list(range(9)) for view in views)


@pytest.fixture(scope="module")
def phantoms() -> Examples:
    """Return a slice each of fifteen phantoms of five regions under five doses."""
    simulation, images, dividers, patients = Simulation(64), [], [], []
    source = PhantomSource(15, 1, 1, 64)
    for patient in source.ids():
        volume = source.load(patient, None)
        grids = [
            place(hu, spacing, 64, "body").resample(1)
            for hu, spacing in zip(volume.slices, volume.spacings_mm, strict=True)
        ]
        expected = expect(np.stack([grid.object for grid in grids]), PROTOCOL, simulation)
        for divider in (1, 2, 4, 6, 10):
            protocol = replace(PROTOCOL, photons=PROTOCOL.photons / divider)
            rngs = [generator(patient, divider, k) for k in range(len(grids))]
            measured = measure(expected, protocol, rngs, simulation)
            images.append(normalise(reconstruct(measured, protocol, simulation), WINDOW))
            dividers += [divider] * len(grids)
            patients += [patient] * len(grids)
    return examples(torch.from_numpy(np.concatenate(images))[:, None], dividers, patients)


def dose_rank(given: Examples, seed: int, **settings: object) -> float:
    """Train on the first ten patients for a few steps, and return the score of the others."""
    numbers = [int(patient[-2:]) for patient in given.patients]
    training = given.rows([row for row, number in enumerate(numbers) if number < 10])
    held_out = given.rows([row for row, number in enumerate(numbers) if number >= 10])
    recipe, _ = make(training, channels=4, **settings)
    torch.manual_seed(seed)
    network = recipe.network(recipe.constants([training], seed))
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    rng = np.random.default_rng(seed)
    network.train()
    for step in range(50):
        rows = rng.choice(len(training), 20, replace=False).tolist()
        loss, _ = recipe.loss(network, training.rows(rows), step, 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return recipe.scores(network, [held_out])["dose_rank"]


@pytest.mark.parametrize("seed", [2, 3])
def test_doses_of_unknown_patients_are_told_and_not_by_shuffled_labels_nor_the_plain_image(
    phantoms: Examples, seed: int
) -> None:
    """The score is a rank correlation, along an axis that it chooses: controls tell its chance."""
    with torch_threads(1):
        told = dose_rank(phantoms, seed)
        shuffled = dose_rank(phantoms, seed, labels="shuffled")
        plain = dose_rank(phantoms, seed, input="image")
    print(f"true {told:.2f}, shuffled {shuffled:.2f}, plain image {plain:.2f}")
    assert told > max(shuffled, plain)
