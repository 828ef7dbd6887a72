"""Why pixels or their meaning are not trusted, and what is done to those that are: in plain words.

A reason leaves a slice out (``LeftOut``); a note says what was done to a slice that stays.
"""

UNDECODABLE = "undecodable pixel data"
NO_HU = "no Hounsfield scale"
BAD_SCALE = "impossible Hounsfield scale"
EIGHT_BITS = "8-bit image"
NO_FORMAT = "no description of the pixels"
HIGH_BIT = "high bit not the last of the bits stored"
MORE_BITS = "more bits in use than the header says"
COLOUR = "no grey values"
FOR_PROCESSING = "for processing, not for reading"
BEYOND_CT = "values beyond any CT"
AIR_ELSEWHERE = "air not at -1000 HU"
WINDOWED = "windowed to 8 bits"
LOSSY = "lossy compression"
DERIVED = "derived image"

PADDING_IN_TISSUE = "padding value that tissue has, ignored there"
PADDING_NOT_STORED = "padding value that the pixels cannot hold, ignored"
PADDING_UNTAGGED = "padding without a tag, made air"
LOSSY_LET_IN = "lossy compression, let in"
DERIVED_LET_IN = "derived image, let in"


class LeftOut(Exception):  # noqa: N818  (an outcome that is counted, not an error)
    """A file is no usable CT slice; the one argument is the reason, which names no patient."""
