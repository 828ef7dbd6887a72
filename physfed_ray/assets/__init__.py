"""Frozen networks that are trained once, before any federation, and what trains them.

Objectives and backbones name one by its hash; hosts load it outside what a method shares.
"""
