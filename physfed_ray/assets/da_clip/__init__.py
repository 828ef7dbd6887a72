"""DA-CLIP of FoundDiff, a reading: what a network can tell of the dose and the anatomy of a slice.

The public code has the network and no training; ``recipe`` says what of the rest is inferred.
"""
