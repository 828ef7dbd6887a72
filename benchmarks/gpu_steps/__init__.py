"""The steps of ``benchmarks/gpu.py``, and what they share: clock, record, carried CT."""
