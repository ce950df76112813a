"""The settings of an inspection run: typed, unknown keys refused."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import available_timezones

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from configs.credentials import masked_url, masked_values, quoted_value


def _known_timezone(name: str) -> str:
    if name not in available_timezones():
        raise ValueError(f"an IANA time zone such as 'Europe/Berlin' or 'UTC', got {quoted_value(name)}")
    return name


Timezone = Annotated[str, AfterValidator(_known_timezone)]
Device = Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")]


class Section(BaseModel):
    """A group of settings: frozen, unknown keys refused, every field with a docstring."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceSettings(Section):
    """Where the pictures come from."""

    uri: str = Field(min_length=1)
    """Folder (or any fsspec URL) that holds the pictures."""
    include: tuple[str, ...] = ("*.png", "*.jpg", "*.jpeg", "*.tif", "*.tiff", "*.bmp", "*.webp")
    """File-name patterns that count as pictures, case-insensitive."""
    recursive: bool = True
    """Also list the folders below."""
    manifest: str | None = None
    """CSV or JSON Lines with the columns file, part, lot, station, captured_at: a path inside the source, an
    absolute path or a URL. Its values win over those in the file name."""
    filename_pattern: str | None = None
    """Regular expression with named groups out of part, lot, station, captured_at."""
    timezone: Timezone = "UTC"
    """Time zone of capture times that have none."""
    only_new: bool = False
    """List only pictures that no earlier run with the same model and settings has inspected."""
    max_pixels: int = Field(default=100_000_000, ge=1)
    """Pictures with more pixels are refused as unreadable."""
    grey_range: tuple[int, int] | None = None
    """Values of a 16-bit grey picture that become black and white; its full range when absent."""
    pixel_size: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Millimetres of the part that a pixel shows, for the scale bars of reports. It changes no verdict."""

    @field_validator("filename_pattern")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                groups = re.compile(value).groupindex
            except re.error as error:
                raise ValueError(f"a regular expression, got {quoted_value(value)}: {error}") from error
            unknown = set(groups) - {"part", "lot", "station", "captured_at"}
            if unknown or not groups:
                raise ValueError(f"named groups out of part, lot, station, captured_at, got {sorted(groups)}")
        return value

    @field_validator("grey_range")
    @classmethod
    def _ascends(cls, value: tuple[int, int] | None) -> tuple[int, int] | None:
        if value is not None and not 0 <= value[0] < value[1] <= 65535:
            raise ValueError(f"two values with 0 <= black < white <= 65535, got {list(value)}")
        return value


class ModelSettings(Section):
    """The model package, and how the model computes."""

    package: Path
    """Folder with model.safetensors and model.json."""
    digest: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """The digest that the package must have; a run refuses to start with another one."""
    device: Device = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    engine: Literal["auto", "torch", "openvino"] = "auto"
    """What computes the logits. auto is openvino on the CPU where the extra `openvino` is installed and
    computes the package as validated, else torch."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto is the fastest that the device has units for and the package was calibrated in; with packages
    calibrated before 0.3, float16 on CUDA and float32 elsewhere."""
    batch_size: int = Field(default=32, ge=1)
    """Pictures per forward pass."""


class ExplainerSettings(Section):
    """How a finding is explained."""

    method: str = "sise-fast"
    """A name of explainers.list_explainers(). Of the settings below, those that the method has count."""
    options: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """Further options of the method by name, such as the share of sise-fast."""
    mu: float = Field(default=0.0, ge=0.0, lt=1.0)
    """A feature map is kept where its gradient exceeds mu times the largest of its layer."""
    baseline: Literal["mean", "black"] = "mean"
    """What a masked pixel becomes: the mean colour, or black."""
    fusion: Literal["otsu", "soft"] = "otsu"
    """The hard Otsu mask as published, or the soft variant of the authors' course code."""
    layers: tuple[str, ...] | None = None
    """Layer names, shallow to deep; the layer rule finds them when absent."""
    batch_size: int = Field(default=16, ge=1)
    """Masked pictures per forward pass. It changes the time, not the map."""
    max_tiles: int = Field(default=4, ge=1, le=1000)
    """Tiles that are explained of a finding, the strongest first, where the model package tiles pictures."""

    @model_validator(mode="after")
    def _holds_no_secret(self) -> Self:
        values = self.model_dump(mode="json")
        if masked_values(values) != values:
            # It would be recorded as it is: the settings digest is that of these very values.
            raise ValueError("names and figures alone: an address with a password has no place here")
        return self


class RunSettings(Section):
    """How the work is divided."""

    batch_size: int = Field(default=64, ge=1, le=10_000)
    """Pictures per task and per transaction."""
    decode_ahead: int = Field(default=2, ge=1, le=16)
    """Batches that are read and decoded while the model is busy."""
    when_busy: Literal["leave", "wait"] = "leave"
    """What a run does while another process is at the same source with the same model and settings."""
    decoders: int | None = Field(default=None, ge=1, le=256)
    """Processes that read and decode; when absent, one for each core, at most 16."""
    picture_seconds: float = Field(default=30.0, gt=0, le=3600)
    """Reading a picture may take so long, and decoding it too. One that takes longer is unreadable in this
    run."""
    picture_memory: int = Field(default=4 * 2**30, ge=2**20)
    """Bytes that a process may take to read or decode a picture. One that needs more is unreadable in this
    run. 100,000,000 pixels take at most 3.2 GB."""
    held_bytes: int = Field(default=2 * 2**30, ge=1)
    """Bytes of files and network inputs, or pixels that tiles are cut from, that all batches under way hold
    together. Where pictures are large, a batch is cut short, and fewer are decoded ahead; a single picture
    may exceed it."""


class DatabaseSettings(Section):
    """The database that holds the record."""

    url: str = "sqlite:///kensa.db"
    """SQLAlchemy URL: sqlite:///FILE or postgresql+psycopg://…"""

    @field_validator("url")
    @classmethod
    def _supported(cls, value: str) -> str:
        if not value.startswith(("sqlite:///", "postgresql+psycopg://")):
            # The value is not repeated, as it may hold a password.
            raise ValueError("a URL that begins with sqlite:/// or postgresql+psycopg://")
        login, at, rest = value.partition("?")[0].partition("://")[2].partition("@")
        if at and ":" in login and "@" in rest:
            # The driver would take what follows the first at sign for the host, and name it in its error.
            raise ValueError("one at sign: in a user or a password it is written %40")
        return value


class ArtifactSettings(Section):
    """Pictures, maps and reports, stored by their digest."""

    uri: str = Field(default="artifacts", min_length=1)
    """Folder (or any fsspec URL) of the artifact store."""
    pictures: Literal["flagged", "all"] = "flagged"
    """Which inspected pictures are kept as evidence."""


class RecordSettings(Section):
    """The files that hold the record: database, artifacts, checkpoints, reports, exports."""

    readable_by: Literal["owner", "group", "everyone"] = "group"
    """Who may read the files that are created: owner is 0600 (folders 0700), group 0640 (0750), everyone 0644
    (0755). An account's stricter umask holds all the same."""


class AuditSettings(Section):
    """Signed checkpoints of the audit trail, kept outside the database."""

    checkpoints: str | None = Field(default=None, min_length=1)
    """Folder (or any fsspec URL) to which the signed head is written after each run that had something to do.
    Whoever owns the database should not be able to change it. When absent, none is written."""
    signing_key: Path | None = None
    """Private key from `kensa audit keygen`, with its public key beside it."""
    passphrase: SecretStr | None = None
    """Of the private key. It belongs in the environment (KENSA_AUDIT__PASSPHRASE), not in a file."""
    trusted_keys: tuple[Path, ...] = ()
    """Public keys that checkpoints may be signed with beside our own: those of earlier years, say."""

    @model_validator(mode="after")
    def _signed_or_not(self) -> Self:
        if (self.checkpoints is None) != (self.signing_key is None):
            raise ValueError("checkpoints and signing_key together, or neither")
        return self


Decision = Literal["confirm", "overrule", "reclassify", "use-as-is", "rework", "repair", "scrap", "return"]


class DispositionSettings(Section):
    """How people decide about findings."""

    four_eyes: tuple[Decision, ...] = ()
    """Decisions that take effect only when a second person, a quality manager, has approved them."""


class TokenSettings(Section):
    """A key on a PKCS#11 token: smart card, USB stick, HSM."""

    module: Path
    """The driver's library, such as /usr/lib/softhsm/libsofthsm2.so."""
    token: str = Field(min_length=1)
    """Label of the token."""
    key: str = Field(min_length=1)
    """Label of the private key on it."""
    certificate: str = Field(min_length=1)
    """Label of the key's certificate on it."""


class SignatureSettings(Section):
    """The organisation's seal on reports, a PAdES signature; without a key reports have no seal."""

    pkcs12: Path | None = None
    """PKCS#12 file (.p12, .pfx) with the key, its certificate and those of its issuers."""
    pkcs11: TokenSettings | None = None
    """Or a token that holds the key."""
    passphrase: SecretStr | None = None
    """Of the file, or the PIN of the token. It belongs in the environment, not in a file
    (KENSA_REPORT__SIGNATURE__PASSPHRASE)."""
    level: Literal["B-B", "B-T", "B-LTA"] = "B-B"
    """B-B: the signature alone; B-T: with a time stamp; B-LTA: with all that checks it decades later."""
    timestamp_url: str | None = Field(default=None, pattern=r"^https?://[^\s]+$")
    """Time-stamp authority (RFC 3161), for B-T and B-LTA. Signing contacts no other address."""
    timeout: float = Field(default=20.0, gt=0, le=600)
    """Seconds to wait for the authority to connect, and for each piece of its answer."""
    trust_roots: tuple[Path, ...] = ()
    """Root certificates (PEM) to which our certificate and the authority's must lead; needed for B-LTA."""
    crls: tuple[Path, ...] = ()
    """Certificate revocation lists to embed, for B-LTA. Whoever runs kensa keeps them up to date."""
    location: str | None = Field(default=None, max_length=200)
    """Where reports are signed, such as the name of a plant; it is part of the signature."""

    @property
    def configured(self) -> bool:
        """Whether reports are to be signed."""
        return self.pkcs12 is not None or self.pkcs11 is not None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.pkcs12 is not None and self.pkcs11 is not None:
            raise ValueError("pkcs12 or pkcs11, not both: a report has one seal")
        if self.level != "B-B" and self.timestamp_url is None:
            raise ValueError(f"timestamp_url: level {self.level} takes a time-stamp authority")
        if self.level == "B-LTA" and not self.trust_roots:
            raise ValueError(
                "trust_roots: level B-LTA takes the roots of our certificate and the authority's"
            )
        return self


class ReportSettings(Section):
    """The PDF report of a run."""

    enabled: bool = True
    """Render a report at the end of each run that had something to do."""
    empty_runs: bool = False
    """Render one, and sign a checkpoint before it, also of a run that had nothing to do: no picture was
    listed, and none that was announced is missing but those that the run before missed as well."""
    folder: Path = Path("reports-out")
    """Where the PDF files are put; they are in the artifact store as well."""
    base_url: str | None = Field(default=None, pattern=r"^https?://[^\s]+$")
    """Address under which others reach that folder, such as https://qa.example/line-1/reports; Prefect's link
    to a report leads there. When absent, Prefect shows host and path."""
    title: str = "Inspection report"
    """Printed at the head of the report."""
    organisation: str = ""
    """Printed at the head of the report."""
    timezone: Timezone = "UTC"
    """Zone in which times are printed."""
    date_format: str = Field(default="%Y-%m-%d", min_length=2, max_length=40)
    """How dates are printed, as a strftime format."""
    paper: Literal["A4", "Letter"] = "A4"
    """Size of the page."""
    templates: Path | None = None
    """Folder with your logo, address and templates (docs/reports.md)."""
    max_findings: int = Field(default=200, ge=0, le=5000)
    """Findings that get a page of their own; the report says how many are left out."""
    signature: SignatureSettings = SignatureSettings()
    """The organisation's seal on reports."""

    @field_validator("base_url")
    @classmethod
    def _shows_no_secret(cls, value: str | None) -> str | None:
        if value is not None and (masked_url(value) != value or "?" in value):
            # Prefect's pages show it to everybody.
            raise ValueError("an address without a user, a password and parameters")
        return value


class ScheduleSettings(Section):
    """When `kensa serve` runs the inspection."""

    cron: str | None = None
    """Five-field cron expression, such as '*/15 * * * *'."""
    timezone: Timezone = "UTC"
    """Zone of the cron expression."""

    @field_validator("cron")
    @classmethod
    def _five_fields(cls, value: str | None) -> str | None:
        if value is not None and len(value.split()) != 5:
            raise ValueError(
                f"a cron expression of five fields such as '*/15 * * * *', got {quoted_value(value)}"
            )
        return value


class Settings(BaseSettings):
    """Everything an inspection run needs to know."""

    model_config = SettingsConfigDict(
        env_prefix="KENSA_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
    )

    name: str = Field(default="inspection", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
    """Name of the inspection: a deployment is called after it."""
    source: SourceSettings
    """Where the pictures come from."""
    model: ModelSettings
    """The model package and how it computes."""
    explainer: ExplainerSettings = ExplainerSettings()
    """How a finding is explained."""
    run: RunSettings = RunSettings()
    """How the work is divided."""
    database: DatabaseSettings = DatabaseSettings()
    """The database that holds the record."""
    artifacts: ArtifactSettings = ArtifactSettings()
    """Pictures, maps and reports, stored by their digest."""
    record: RecordSettings = RecordSettings()
    """The files that hold the record."""
    audit: AuditSettings = AuditSettings()
    """Signed checkpoints of the audit trail."""
    dispositions: DispositionSettings = DispositionSettings()
    """How people decide about findings."""
    report: ReportSettings = ReportSettings()
    """The PDF report of a run."""
    schedule: ScheduleSettings = ScheduleSettings()
    """When `kensa serve` runs the inspection."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take values from the caller alone.

        `load_settings` merges file, environment and overrides itself, and so knows where each value is from.
        """
        return (init_settings,)

    def decision(self, precision: str, engine: str = "torch", *, tiled: bool = False) -> dict[str, Any]:
        """Return the content of the settings digest: what, beside picture and model, decides an outcome.

        Paths, batch sizes and devices are left out: they change where and how fast, not what. The digest
        decides which pictures need no new inspection; a new key, or a changed value, would make them all new.

        The rule for a new setting that changes an outcome: its key enters only where its value differs from
        the one that means "as before". So settings that were written before it keep their digest, and no
        plant inspects everything again because of an update. tests/golden/test_settings_digests.py holds the
        digests that 0.1.0 gave.

        Args:
            precision: the precision in which the model computes, with "auto" resolved.
            engine: the engine with which it computes, with "auto" resolved.
            tiled: whether the model package tiles pictures: what is said of tiles counts there alone.
        """
        explainer = self.explainer.model_dump(mode="json", exclude={"batch_size", "max_tiles"})
        if tiled and self.explainer.max_tiles != ExplainerSettings().max_tiles:
            explainer["max_tiles"] = self.explainer.max_tiles
        decision: dict[str, Any] = {
            "decoding": {"max_pixels": self.source.max_pixels, "grey_range": self.source.grey_range},
            "precision": precision,
            "explainer": explainer,
        }
        if engine != "torch":
            decision["engine"] = engine
        return decision

    def public(self) -> dict[str, Any]:
        """Return all settings as JSON-ready values, each secret in them masked (`configs.credentials`)."""
        values: dict[str, Any] = masked_values(self.model_dump(mode="json"))
        return values
