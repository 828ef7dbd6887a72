"""LEDA's autoencoder: its frozen codebook is the token table of a language model.

``recipe.py`` says how it is trained, ``autoencoder.py`` and ``pyramid.py`` what it is.
"""
