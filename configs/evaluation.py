"""The settings of `kensa evaluate`: typed, unknown keys refused."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from configs.loading import merge_layers, profile_path, read_overrides, read_yaml
from configs.schema import Device, Section

Metric = Literal[
    "ebpg",
    "miou",
    "bbox",
    "drop",
    "increase",
    "pointing_game",
    "insertion",
    "deletion",
    "rank_correlation",
]
Precision = Literal["float32", "bfloat16", "float16"]
Truth = Literal["boxes", "masks"]


def _as_list(value: Any) -> Any:
    """Return a single value as a list of it."""
    return [value] if isinstance(value, str | int | float) else value


def _as_text(value: Any) -> Any:
    """Return a whole number as text: YAML reads 2007 and 1 as numbers where they are names."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Name = Annotated[str, BeforeValidator(_as_text)]
Names = Annotated[tuple[Name, ...], BeforeValidator(_as_list)]


class _Data(Section):
    classes: Annotated[tuple[Name, ...] | None, BeforeValidator(_as_list)] = None
    """Classes to evaluate; all when absent."""
    subset: Path | None = None
    """CSV file that lists the pictures to use, with paths relative to itself, such as the test.csv of the
    split that `kensa train` wrote; all pictures when absent."""
    subset_column: str = "image"
    """Column of the subset with the paths."""
    limit: int | None = Field(default=None, ge=1)
    """How many pairs of picture and class to use at most, drawn evenly over the classes; all when absent."""
    seed: int = 0
    """Seed of the draw, and of the bootstrap."""


class FolderData(_Data):
    """Pictures with grey masks."""

    kind: Literal["folder"]
    """folder."""
    path: Path
    """CSV with one row for each picture and class, or a folder with images/CLASS and masks/CLASS."""
    image_column: str = "image"
    """CSV column with the picture's path, relative to the CSV."""
    label_column: str = "label"
    """CSV column with the class."""
    mask_column: str = "mask"
    """CSV column with the mask's path; rows without one are skipped and counted."""
    group_column: str | None = None
    """CSV column with what the bootstrap resamples together, such as the part; the picture when absent."""
    where: dict[str, Names] = Field(default_factory=dict)
    """CSV column -> its values to keep; other rows are left out."""
    threshold: int = Field(default=127, ge=0, le=254)
    """Pixels of a mask above this value belong to the class."""


class SeverstalData(_Data):
    """Severstal's steel strips, cut into patches."""

    kind: Literal["severstal"]
    """severstal."""
    table: Path
    """The file train.csv."""
    images: Path
    """The folder train_images."""
    patch: tuple[int, int] = (256, 256)
    """Height and width of a patch, in pixels."""
    stride: tuple[int, int] = (256, 256)
    """Distance between patches, down and across, in pixels."""
    min_area: int = Field(default=100, ge=1)
    """A defect with fewer pixels than this in a patch does not count."""
    every_class: bool = False
    """Judge every defect class of a patch, and not only the one with most pixels."""
    class_names: tuple[Name, Name, Name, Name] = ("1", "2", "3", "4")
    """What the model calls the four defect classes."""


class VocData(_Data):
    """PASCAL VOC."""

    kind: Literal["voc"]
    """voc."""
    root: Path
    """Folder that contains VOCdevkit."""
    year: Annotated[str, BeforeValidator(_as_text)] = "2007"
    """2007 to 2012."""
    image_set: str = "test"
    """train, val or trainval; for 2007 also test."""
    truth: Truth = "boxes"
    """The filled boxes of all pictures, or the pixel masks of the segmentation set."""
    difficult: bool = False
    """Whether boxes marked difficult count too."""


class CocoData(_Data):
    """MS COCO."""

    kind: Literal["coco"]
    """coco."""
    images: Path
    """Folder of pictures, such as val2014."""
    annotations: Path
    """File of annotations, such as instances_val2014.json."""
    truth: Truth = "masks"
    """Instance masks or filled boxes."""
    crowd: bool = False
    """Whether crowd regions count too."""


Data = Annotated[FolderData | SeverstalData | VocData | CocoData, Field(discriminator="kind")]


class EvaluatedModelSettings(Section):
    """The model: a package, or an architecture with weights."""

    package: Path | None = None
    """Model package from `kensa train`."""
    architecture: str | None = None
    """Instead: a timm name, or torchvision:NAME."""
    weights: Path | None = None
    """The architecture's weights, a local .safetensors file."""
    model_args: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of the architecture."""
    classes: tuple[Name, ...] | None = None
    """Class names in the order of the outputs."""
    mapping: Path | None = None
    """Instead of classes: CSV file that says which outputs mean which class of the data."""
    mapping_index: str = "imagenet_index"
    """Column of the mapping with the output's number."""
    mapping_class: str = "coco_category"
    """Column of the mapping with the class of the data."""
    outputs: int | None = Field(default=None, ge=1)
    """Number of outputs; needed with a mapping."""
    input_size: tuple[int, int] = (224, 224)
    """Height and width of the network's input, in pixels."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Mean of the normalisation, on the 0 to 1 scale."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Standard deviation of the normalisation, on the 0 to 1 scale."""
    fit: Literal["pad", "stretch"] = "stretch"
    """How a picture is brought to the input size."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """How it is resized."""
    activation: Literal["softmax", "sigmoid"] = "softmax"
    """sigmoid for a multi-label network."""
    device: Device = "auto"
    """auto, cpu, cuda, cuda:N or mps."""

    @model_validator(mode="after")
    def _one_model(self) -> Self:
        if self.package is not None:
            others = sorted(self.model_fields_set - {"package", "device"})
            if others:
                raise ValueError(
                    f"a package alone, which says all about the model; it has {', '.join(others)} too"
                )
            return self
        if self.architecture is None or self.weights is None:
            raise ValueError("package, or architecture and weights")
        if (self.classes is None) == (self.mapping is None):
            raise ValueError("classes or mapping beside architecture and weights, one of the two")
        if self.mapping is not None and self.outputs is None:
            raise ValueError("outputs, the number of the network's outputs, beside a mapping")
        if self.classes is not None and self.outputs not in (None, len(self.classes)):
            raise ValueError(f"outputs to be the number of classes, {len(self.classes)}, got {self.outputs}")
        return self


class MethodSettings(Section):
    """One explainer: a column of the table."""

    method: str
    """A name of explainers.list_explainers()."""
    label: str = ""
    """Heading of its column; the method's name when absent."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the method, such as mu or layers."""

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"method": value} if isinstance(value, str) else value

    @property
    def heading(self) -> str:
        """The label, or the method's name."""
        return self.label or self.method


class EvaluationSettings(Section):
    """Everything that `kensa evaluate` needs to know."""

    name: str = "Evaluation"
    """Heading of the table."""
    output: Path
    """Folder for results.jsonl, the tables and maps.png. A restart goes on from what is there."""
    data: Data
    """The data set with its ground truth."""
    model: EvaluatedModelSettings
    """The model that is explained."""
    explainers: tuple[MethodSettings, ...] = Field(min_length=1)
    """The columns of the table."""
    metrics: tuple[Metric, ...] = ("ebpg", "miou", "bbox", "drop", "increase")
    """The rows of the table; seconds and masked passes are always added. insertion and deletion are slow."""
    reference: str | None = None
    """Label of the explainer to which rank_correlation compares; sise when absent, if it is one of them."""
    only_correct: bool = False
    """Leave out pictures whose class is not the most probable one to the model."""
    precision: Precision = "float32"
    """Precision of the masked passes."""
    batch_size: int = Field(default=16, ge=1)
    """Masked pictures per forward pass: 4 to 16 on a CPU, hundreds on a GPU."""
    tolerance: float = Field(default=0.0, ge=0.0)
    """Tolerance of the pointing game, in pixels of the network's input; 15 is usual."""
    insertion_steps: int = Field(default=32, ge=1)
    """Steps of insertion and deletion; each takes two forward passes."""
    examples: int = Field(default=8, ge=0, le=100)
    """Rows of maps.png."""

    @field_validator("explainers")
    @classmethod
    def _labels_differ(cls, value: tuple[MethodSettings, ...]) -> tuple[MethodSettings, ...]:
        headings = [entry.heading for entry in value]
        if len(set(headings)) != len(headings):
            raise ValueError(f"a label of its own for each explainer, got {', '.join(headings)}")
        return value

    @model_validator(mode="after")
    def _reference_is_there(self) -> Self:
        headings = [entry.heading for entry in self.explainers]
        if self.reference is not None and self.reference not in headings:
            raise ValueError(f"reference to be one of {', '.join(headings)}, got {self.reference!r}")
        if "rank_correlation" in self.metrics and self.compared_with is None:
            raise ValueError("a reference, one of the explainers, beside the metric rank_correlation")
        return self

    @property
    def compared_with(self) -> str | None:
        """The label of the explainer to which rank_correlation compares, or None."""
        headings = [entry.heading for entry in self.explainers]
        return self.reference or ("sise" if "sise" in headings else None)


def load_evaluation(config: str | Path, overrides: Sequence[str] = ()) -> EvaluationSettings:
    """Load evaluation settings: defaults < YAML < overrides ("section.key=value").

    Args:
        config: YAML file, or the name of one that ships with kensa ("evaluate-voc").
        overrides: win over the file.

    Raises:
        ConfigError: one line per mistake, with its origin, the key and what was expected.
    """
    path = profile_path(str(config), evaluation=True)
    layers = [(str(path), read_yaml(path)), ("--set", read_overrides(overrides))]
    return merge_layers(EvaluationSettings, layers, tagged=("data",))
