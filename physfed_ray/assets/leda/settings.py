"""Keys under ``asset:`` for LEDA."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from physfed_ray.assets.base import RecipeSettings
from physfed_ray.reports.hub import ModelName

LEVELS = 5
"""Most levels, as in LEDA."""
LARGEST_FACTOR = 16
"""Pixels of an image along a side of one position of the latent grid, with the most levels."""


class LedaSettings(RecipeSettings):
    """Sizes, codebook and weights of LEDA's autoencoder."""

    channels: int = Field(
        32, ge=4, description="width of the first level; 64 in LEDA, whose norms have 32 groups"
    )
    multipliers: Annotated[
        tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1, max_length=LEVELS)
    ] = Field(
        (1, 1, 2),
        description="width of each level in units of `channels`; each but the last halves the "
        "image; [1, 1, 2, 2, 4] in LEDA",
    )
    codebook: Literal["table", "learned"] = Field(
        "table",
        description="table: the token table of MiniLM, frozen; learned: as many vectors without "
        "words, trained as in VQGAN",
    )
    rows: int | None = Field(
        1000,
        ge=2,
        description="rows of the codebook: the candidates of all training slices and random words "
        "to make up the number (more where the candidates alone are more); null: all tokens",
    )
    lengths: Literal["unit", "own"] = Field(
        "unit",
        description="unit: rows of the table are scaled to length 1, or the shortest would be the "
        "nearest to almost everything; own: as they are, as in LEDA with PubMedCLIP's",
    )
    standardise: bool = Field(
        True,
        description="whether features get the codebook's mean and spread, channel by channel, "
        "before tokens are chosen; without it few tokens are used; not in LEDA",
    )
    vocabulary: tuple[str, ...] | None = Field(
        None, description="words that may be candidates; null: all whole words among the tokens"
    )
    clip: ModelName | None = Field(
        None,
        description="folder, relative to this file, or Hugging Face id of a CLIP that chooses the "
        "candidates by the image; null: by the report, a stand-in",
    )
    neutral: float = Field(
        0.5,
        ge=0,
        le=1,
        description="without `clip`: share of a word's similarity to a report without anatomy "
        "that is taken off its similarity to the slice's; 0 leaves words that fit every report",
    )
    semantic: bool = Field(True, description="whether the semantic loss is trained on")
    alpha: float = Field(0.3, ge=0, description="share of the semantic loss beside all others")
    beta: float | None = Field(
        None, ge=0, description="weight of the commitment; null: 0.3 (paper), 1 (public_code)"
    )
    temperature: float = Field(
        1.0,
        gt=0,
        description="divides the squared distances in the semantic loss; 1 in the paper",
    )
    usage: float = Field(
        0.0,
        ge=0,
        description="share, beside all others, of a loss that wants all rows to be used in layer "
        "3; not in LEDA",
    )
    gan: bool = Field(False, description="whether a patch discriminator is trained too")
    gan_weight: float | None = Field(
        None, ge=0, description="its weight; null: 0.1 (paper), 0.8 (public_code)"
    )
    gan_start: int = Field(12000, ge=0, description="steps before it counts")
    gan_filters: int = Field(64, ge=1, description="width of its first layer")
    variant: Literal["paper", "public_code"] = Field(
        "paper",
        description="whose reconstruction, commitment and semantic losses: the paper's or those of "
        "the authors' code",
    )

    @model_validator(mode="after")
    def _words_need_a_table(self) -> Self:
        if self.codebook == "learned" and self.semantic:
            raise ValueError(
                "codebook: learned has no words that a semantic loss could ask for: set semantic "
                "to false, or codebook to table"
            )
        return self

    @model_validator(mode="after")
    def _words_are_tokens(self) -> Self:
        if self.vocabulary is None:
            return self
        from physfed_ray.assets.leda.candidates import whole_words

        unknown = [word for word in self.vocabulary if word not in whole_words()]
        if unknown or len(self.vocabulary) < 2:
            reason = f"{unknown[0]} is none" if unknown else "one word is no choice"
            raise ValueError(
                f"vocabulary: {reason}: name at least two tokens of MiniLM that are whole words in "
                "small letters"
            )
        return self

    @property
    def commitment_weight(self) -> float:
        """Beta."""
        usual = 0.3 if self.variant == "paper" else 1.0
        return usual if self.beta is None else self.beta

    @property
    def adversarial_weight(self) -> float:
        """Gamma."""
        usual = 0.1 if self.variant == "paper" else 0.8
        return usual if self.gan_weight is None else self.gan_weight
