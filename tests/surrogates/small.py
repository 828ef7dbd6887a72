"""A surrogate study as small as it gets."""

SMALL = """
surrogate: small
data: {source: {phantom: {patients: 10, slices: 3}}, image_size: 32, test_patients: 5}
clients: 2
hosts: {patients: 4, slices: 3, seed: 99}
betas: [0.5]
tasks: [lesion]
quality: {steps: 2, width: 4}
training: {rounds: 1, width: 4}
attack: {epochs: 1, width: 4}
"""
