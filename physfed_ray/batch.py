"""What a network sees in one step."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """A batch of patches or whole images of one client.

    Attributes:
        low: Low-dose images, (B, 1, h, w) float32, 0 and 1 are the ends of the HU window.
        full: Full-dose images, same shape and scale.
        g: Normalised protocol of the client, (7,) float32.
        embedding: Report embeddings f_t, (B, T, d) float32, not standardised.
        embedding_mask: (B, T) bool, True where a token is real.
        origin: (B, 2) int64, row and column of the patch's top-left pixel in its image.
        image_size: Side n of the whole image in pixels.
    """

    low: Tensor
    full: Tensor
    g: Tensor
    embedding: Tensor
    embedding_mask: Tensor
    origin: Tensor
    image_size: int
