"""Metrics, tables, figures and the HTML report."""
