"""Simulation of personalised federated learning for low-dose CT on Ray."""

__version__ = "0.1.0"
