"""What training minimises: how far denoised images are from the full dose, by name."""
