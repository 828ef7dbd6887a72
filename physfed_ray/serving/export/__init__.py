"""A trained network as a folder of files for use elsewhere: weights, a graph, and its card."""
