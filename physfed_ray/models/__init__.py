"""Backbones, hypernetworks and modulation, in plain torch."""
