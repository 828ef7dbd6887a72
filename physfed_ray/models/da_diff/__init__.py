"""DA-Diff, the denoiser of FoundDiff: residual diffusion with a network that knows the dose.

``backbone`` says what it is; ``diffusion`` is its maths, ``unet`` and ``blocks`` its network,
``selective_scan`` the state-space layer within.
"""
