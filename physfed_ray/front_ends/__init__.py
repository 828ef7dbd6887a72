"""Front ends: what makes the image that a network reads from what the detector measured."""
