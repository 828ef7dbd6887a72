"""The bytes that clients publish once, before the first round."""

from dataclasses import replace

from physfed_ray.cost.estimate import counts
from physfed_ray.cost.step_cost import probe_batch
from physfed_ray.data.plan import PreparePlan
from physfed_ray.experiment import Experiment
from physfed_ray.methods.base import Method


def published_bytes(experiment: Experiment, todo: PreparePlan, method: Method) -> tuple[int, int]:
    """Return the bytes that all clients together send, and receive, before the first round.

    They are those of what the method publishes of random images, as many as the first batch of
    each client has. (What a channel makes of them may differ.)
    """
    if type(method).publish is Method.publish:
        return 0, 0
    training = experiment.training
    one = probe_batch(method, training.patch or experiment.data.image_size, "cpu")
    images = [
        min(training.batch_size, counts(todo, "train", c.id)[1] * training.patches_per_slice)
        for c in experiment.clients
    ]
    by_images = {}
    for count in set(images):
        low = one.low.expand(count, -1, -1, -1)
        by_images[count] = method.publish(replace(one, low=low, full=low))
    published = [by_images[count] for count in images]
    up = sum(array.nbytes for arrays in published for array in arrays.values())
    collected = method.collect(published)
    return up, len(published) * sum(array.nbytes for array in collected.values())
