"""Keys under ``data``: where the images come from and how they are cut up."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from physfed_ray.ct.noise import ELECTRONIC_NOISE_COUNTS
from physfed_ray.ct.simulation import Simulation, default_object_scale
from physfed_ray.experiment.explain import shown
from physfed_ray.experiment.patients import patients
from physfed_ray.experiment.settings import LONGEST_NAME, MOST, RelativePath, Settings, operational
from physfed_ray.window import Window

WIDEST_HU = 1e5
LARGEST_OBJECT = 8192
"""Side of a scanned object in pixels: 256 MB of float32."""
LARGEST_IMAGE = 2048
SMALLEST_IMAGE = 32
"""Side in pixels; RED-CNN's five unpadded 5 x 5 layers take 20 of them at the bottleneck."""


def _patients(value: Any) -> Any:
    return patients(value, fewest=0)


Patients = Annotated[int | tuple[str, ...], BeforeValidator(_patients)]


def _phantoms(value: Any) -> Any:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if value == "auto" or (whole and 1 <= value <= MOST):
        return value
    raise ValueError(f"must be 'auto' or a number of patients from 1 to {MOST}, not {shown(value)}")


class Phantom(Settings):
    """Procedural patients."""

    patients: Annotated[int | Literal["auto"], BeforeValidator(_phantoms)] = Field(
        description="number of patients, dealt over the clients and the test set; auto: as many "
        "as clients, validation and test need"
    )
    slices: int = Field(12, ge=1, le=10_000, description="slices of each patient")


class Source(Settings):
    """Where the images come from: full dose in DICOM, phantoms, or both doses in DICOM."""

    dicom: RelativePath | None = Field(
        None, description="folder tree with CT DICOM files, relative to this file"
    )
    pairs: RelativePath | None = Field(
        None,
        description="folder tree with CT DICOM files of the same patients at full and at low dose, "
        "which are used as they are, without simulation (docs/data.md)",
    )
    full: str | None = Field(
        None,
        min_length=1,
        description="of pairs: pattern for paths or series descriptions of the full dose, such as "
        "'*full_1mm*'; null: as their names say",
    )
    low: str | None = Field(
        None, min_length=1, description="of pairs: pattern for those of the low dose, likewise"
    )
    min_slices: int = Field(
        1, ge=1, le=MOST, description="DICOM patients with fewer usable slices are left out"
    )
    lossy: bool = Field(
        False, description="DICOM that a lossy compression has changed counts as ground truth too"
    )
    derived: bool = Field(
        False, description="DICOM images computed from others (averages, MIPs) count too"
    )
    phantom: Phantom | None = Field(None, description="procedural patients instead of DICOM")

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if sum(given is not None for given in (self.dicom, self.phantom, self.pairs)) != 1:
            raise ValueError(
                "give exactly one of 'dicom' (a folder), 'phantom' and 'pairs' (a folder); clients "
                "with measured and with simulated low dose cannot share an experiment"
            )
        if self.pairs is None and (self.full, self.low) != (None, None):
            raise ValueError("'full' and 'low' belong to 'pairs'")
        if self.phantom and "min_slices" in self.model_fields_set and self.min_slices > 1:
            raise ValueError("'min_slices' belongs to 'dicom'; phantoms have 'phantom.slices'")
        if self.phantom and (self.lossy or self.derived):
            key = "lossy" if self.lossy else "derived"
            raise ValueError(f"'{key}' belongs to 'dicom'; phantoms are what they are")
        return self

    @property
    def folder(self) -> Path | None:
        """The folder that is read, None for phantoms."""
        return self.dicom or self.pairs


class Images(Settings):
    """Images and how they are cut up: what experiments and pretraining have in common."""

    source: Source | None = Field(None, description="where the images come from")
    image_size: int = Field(
        256,
        ge=SMALLEST_IMAGE,
        le=LARGEST_IMAGE,
        description="side of the square image grid in pixels",
    )
    slices_per_patient: int | None = Field(
        None,
        ge=1,
        le=MOST,
        description="at most so many slices a patient, evenly spaced; null: all",
    )
    window_hu: Window = Field(
        (-1000.0, 2000.0),
        description="HU that become 0 and 1 for the network and the plain metrics",
    )
    centre: Literal["body", "image"] = Field(
        "body", description="centre each slice on the body (and shrink it to fit) or on its frame"
    )
    object_scale: int | None = Field(
        None,
        ge=1,
        le=8,
        description="pixels of the scanned object along one pixel of the image; null: 2 to 4, an "
        "object of 512 pixels; 1: the object is the image itself, as in the papers, and its pixel "
        "edges flatter whoever re-projects: for comparison only",
    )
    kernel_pixels: float | None = Field(
        None,
        ge=0,
        le=8,
        description="width of the reconstruction kernel in pixels of the image, 0 for the plain "
        "ramp; null: 0.85, but never finer than 0.85 pixels of a 256 x 256 grid",
    )
    electronic_noise: float = Field(
        ELECTRONIC_NOISE_COUNTS,
        ge=0,
        le=1e6,
        description="electronic noise of the detector: standard deviation in counts",
    )
    cache: RelativePath | None = operational(
        None, description="folder for prepared scans; null: PHYSFED_CACHE or ~/.cache/physfed_ray"
    )

    @property
    def simulation(self) -> Simulation:
        """How scans are simulated."""
        return Simulation(
            image_size=self.image_size,
            object_scale=self.object_scale or default_object_scale(self.image_size),
            kernel_pixels=self.kernel_pixels,
            electronic_noise=self.electronic_noise,
        )

    @field_validator("window_hu", "clinical_windows", check_fields=False)
    @classmethod
    def _low_before_high(cls, value: Any) -> Any:
        for name, (low, high) in (value if isinstance(value, dict) else {"": value}).items():
            if len(name) > LONGEST_NAME:
                raise ValueError(f"a window's name has at most {LONGEST_NAME} characters")
            if not low + 1 <= high or max(-low, high) > WIDEST_HU:
                raise ValueError(
                    "a window is [low, high] in HU with low < high, at least 1 HU apart and within "
                    f"{WIDEST_HU:g} of 0, not [{low:g}, {high:g}]"
                )
        return value

    @model_validator(mode="after")
    def _object_fits(self) -> Self:
        side = self.simulation.object_size
        if side > LARGEST_OBJECT:
            raise ValueError(
                f"'object_scale' {self.object_scale} at 'image_size' {self.image_size} makes an "
                f"object of {side} pixels a side, more than {LARGEST_OBJECT}; lower either"
            )
        return self


class Data(Images):
    """The images and how they are cut up."""

    source: Source = Field(description="where the images come from")
    clinical_windows: dict[str, Window] = Field(
        {"soft": (-160.0, 240.0), "lung": (-1350.0, 150.0)},
        description="further HU windows in which PSNR and SSIM are given, by name",
    )
    test_patients: Patients = Field(
        2, description="number of test patients, or their ids; scanned under every protocol"
    )
    validation_patients: Patients = Field(
        0, description="number of validation patients, or their ids; scanned under seen protocols"
    )
    server_patients: Patients = Field(
        0,
        description="number of patients whose full dose lies on the server, or their ids; scanned "
        "under every client's protocol, for methods that also train on the server (fedm2ct)",
    )
    reuse_patients: bool = Field(
        False,
        description="where there are fewer patients than clients need, let several clients train "
        "on the same one, each under its own protocol and noise",
    )
    noise: Literal["fixed", "fresh"] = Field(
        "fixed",
        description="fixed: every slice is scanned once, before training; fresh: training slices "
        "are scanned again in every round, the same but for the noise; validation and test slices "
        "never are",
    )

    @field_validator("test_patients")
    @classmethod
    def _tests_something(cls, value: int | tuple[str, ...]) -> int | tuple[str, ...]:
        if not value:
            raise ValueError("at least 1 test patient is needed")
        return value
