"""The parts of a derived CT image: its header, its pixels, its UIDs, and where it comes from.

``physfed_ray.data.dicom.derived`` puts them together.
"""
