"""Local training: every client on its own, the bound that a federation has to beat."""

from physfed_ray.methods.base import Method, NoSettings


class Local(Method):
    """Nothing is shared."""

    name = "local"
    title = "Local"
    paper = "no federation"
    group = "personalised"
    diffusion = True
    shared = ()
    Settings = NoSettings
