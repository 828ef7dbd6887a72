"""How a frozen network is trained before any federation: its slices, its steps, its checkpoints.

Plain Python; where it runs is decided by ``runtime.pretrain``.
"""
