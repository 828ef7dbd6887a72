"""Federated learning algorithms, one file a paper."""
