"""Reports of the anatomy and their embeddings."""
