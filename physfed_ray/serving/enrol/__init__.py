"""A new hospital joins a finished run: it trains a private part on its own patients, no more."""
