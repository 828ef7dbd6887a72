"""From the rows of finished runs to tables, pairings and comparisons."""
