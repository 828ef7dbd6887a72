"""Surrogate images after FESF, who learns a diagnosis from them, and who attacks them."""
