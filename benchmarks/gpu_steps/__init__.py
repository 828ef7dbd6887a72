"""The steps of ``benchmarks/gpu.py``, and what they share: the clock, the record, the carried CT."""
