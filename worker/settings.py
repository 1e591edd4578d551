"""Every setting: name, unit, default, reason. Read once from the environment (prefix SIGHTLINE_), then frozen. Those of
a process's life lie in worker.processes.

The texts below the fields are the documentation: `python -m worker.settings_table` prints them as the table of the
README. Lists are written with commas, or as JSON where a part has a comma or a blank at its end. While `sightline up`
runs, its addresses come from `.sightline/up.env`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from producer_client import contract
from producer_client.addresses import checked, checked_redis
from producer_client.contract import Code, Provenance
from worker import listed, prefixes, upenv
from worker.disclosure import DisclosureSettings
from worker.errors import Permanent
from worker.processes import DAY_S, ProcessSettings
from worker.secrecy import FILE, SecretSettings
from worker.spelling import on_disk

PREFIX = "SIGHTLINE_"
#: Columns of the backend's table that Sightline reads, by its own names for them.
PHOTO_COLUMNS = ("id", "file_path", "lat", "lon", "address_data", "location_method", "created_at")
POSTGRES_SCHEMES = ("postgresql", "postgres", "postgresql+psycopg2")
POSTGRES_LOOKS = "postgresql://user:PASSWORD@host:5432/database"
#: Brokers and places of replies within one process, which tests have.
IN_MEMORY = ("memory", "cache+memory")

Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(listed.parts)]
Schemes = Annotated[tuple[Literal["http", "https", "s3", "gs", "file"], ...], NoDecode, BeforeValidator(listed.parts)]
Paths = Annotated[tuple[Path, ...], NoDecode, BeforeValidator(listed.parts)]
ProvenanceOf = Annotated[dict[str, Provenance], NoDecode, BeforeValidator(listed.pairs)]
ColumnOf = Annotated[dict[str, str], NoDecode, BeforeValidator(listed.pairs)]
Rung = Literal["places", "geometry", "conflicts", "calibration", "time"]
Rungs = Annotated[tuple[Rung, ...], NoDecode, BeforeValidator(listed.parts)]
FolderOf = Annotated[dict[str, str], NoDecode, BeforeValidator(prefixes.read)]


class Settings(ProcessSettings, SecretSettings, DisclosureSettings):
    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="ignore",
        validate_default=True,
        hide_input_in_errors=True,  # addresses have passwords
        defer_build=False,  # of its parts it is, which nobody makes alone
    )

    # -- addresses
    broker_url: str = "redis://127.0.0.1:6379/5"
    """The Redis or Valkey that carries the messages: `redis://`, `rediss://` (TLS; with `?ssl_cert_reqs=required` at
    its end) or `redis+socket://`. Give Sightline a database of its own in it (the `/5`)."""
    result_backend: str = ""
    """Where replies lie; the broker unless set."""
    key_prefix: str = Field(default=contract.DEFAULT_KEY_PREFIX, pattern=contract.KEY_PREFIXES)
    """What every key of ours in Redis begins with: letters, digits and `_ . : -`, one of the latter at the end. Clients
    are told the same (`key_prefix=`). Empty for the queues of releases before it."""
    database_url: str = "postgresql+psycopg2://postgres@127.0.0.1:5432/postgres"
    """The Postgres that holds the truth. `postgresql://` is read as `postgresql+psycopg2://`. `sightline up` starts one
    of its own unless this is set."""
    data_dir: Path = Path(".sightline")
    """Folder for everything that this machine keeps: embedded servers, generations of the index. `sightline up` closes
    it to other users."""
    index_dir: Path | None = None
    """Folder of the index generations, shared by the processes of a host; `<data_dir>/index` unless set."""

    # -- the backend's table
    photos_table: str = Field(default="photos", pattern=r"^([A-Za-z_]\w*\.)?[A-Za-z_]\w*$")
    """The backend's photo table or view, `schema.table` or `table`. Created when it is absent, never altered."""
    photos_columns: ColumnOf = Field(default={})
    """What that table calls its columns where it is not as above, as `ours=theirs` pairs:
    `lat=latitude,lon=longitude`."""
    db_schema: str = Field(default="sightline", pattern=r"^[A-Za-z_]\w*$")
    """Postgres schema of Sightline's own tables."""
    location_methods: ProvenanceOf = Field(default=dict(contract.LOCATION_METHODS))
    """What the backend's `location_method` values mean, as `value=provenance` pairs. Values that are a provenance
    themselves need no pair; every other value counts as `derived`, which is never evidence."""

    write_rows: bool = False
    """Whether coordinates and addresses of messages are written to rows that are there already, where a message does
    not say so itself (`update_row`). Otherwise they are kept in Sightline's own tables. New photos get rows in any
    case; weaker coordinates never replace stronger ones."""
    stale_files_count: bool = False
    """Whether a photo stays evidence whose file has changed or gone since it was embedded, as rebuilds and `sightline
    embed --missing` notice. It is found all the same; otherwise it is no evidence until the file is back as it was, or
    has been embedded again."""
    changed_files: Literal["re-embed", "report"] = "re-embed"
    """Whether a photo whose file has changed is embedded again, or only marked, and listed by `sightline refused`."""

    # -- the model
    encoder: str = "open_clip/ViT-B-32/openai"
    """`open_clip/<model>/<tag>`; `packaged/efficientnet-lite0` or the larger `packaged/efficientnet-lite2`; or a
    local file with `SIGHTLINE_ENCODER_SHA256`: `open_clip/<model>/<file>`, or `place/<file>`, a state dict of
    CosPlace or EigenPlaces (`.pth`, `.safetensors`) or any place-recognition network as `.onnx`, on the CPU. `+gem`
    behind a vision transformer of open_clip pools the tokens of its patches, without texts.
    `open_clip/<model>/random` is for tests alone."""
    encoder_sha256: str = ""
    """SHA-256 that a checkpoint must have, so that a swapped file is not read. Required with a local one; without it,
    the one of a tag is what its model hub gave at the first download."""
    next_encoder: str = ""
    """The encoder to change to. Its vectors are filled by bulk messages while `SIGHTLINE_ENCODER` serves; when no photo
    lacks one, it serves. Set on every worker; swap the two to go back."""
    next_encoder_sha256: str = ""
    """SHA-256 of its checkpoint."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`, `cpu` or `cuda`. `auto` takes CUDA (half precision) where there is a device."""
    backend: str = "auto"
    """What runs the image tower: `auto` measures once what this machine has and takes the fastest whose vectors are
    those of torch in float32; or `torch-float32`, `torch-bfloat16`, `torch-float16` (CUDA), `onnxruntime-float32`,
    `onnxruntime-int8`, `openvino-float32`, `openvino-bfloat16`. `sightline doctor` shows the table."""
    models_dir: Path | None = None
    """Folder of exported models (`sightline export`) and of what was measured; `<data_dir>/models` unless set."""
    model_threads: int = Field(default=0, ge=0)
    """Threads of one forward pass; 0 takes the cores that this process may run on (a container's CPU limit is not
    seen). torch and FAISS bring an OpenMP runtime each, so both are told."""
    encode_batch: int = Field(default=32, ge=1)
    """Photos in one forward pass. More of them need more memory."""
    encode_bulk_batch: int = Field(default=0, ge=0)
    """The same for photos of bulk messages. A search waits for the pass in hand, so short ones keep it quick; 0 takes
    8 on a CPU and `SIGHTLINE_ENCODE_BATCH` on a GPU, where a pass is short anyway."""
    encode_linger_ms: float = Field(default=0, ge=0)
    """Milliseconds that an idle model waits at the most for photos that are being decoded, to take them along. A
    request that is alone never waits. 0 takes 100 on a CPU, whose cores decode meanwhile, and 2 on a GPU."""
    encode_patience_s: float = Field(default=1.0, gt=0, le=DAY_S)
    """Seconds after which bulk photos get one pass although urgent ones wait."""
    encode_queue: int = Field(default=256, ge=1)
    """Photos of searches, and as many of bulk messages, that may wait for the model of one process. What comes then is
    answered `overloaded`, to be sent again; writes go round by themselves."""

    recent_vectors: int = Field(default=4096, ge=1)
    """Photos whose vectors a process remembers for a quarter of an hour although Postgres does not have them: a photo
    that is located and then added goes through the model once. 2 kB each."""

    # -- photos
    photo_roots: Paths = ()
    """Folders that `path` may point into, after links are followed, with commas. Empty allows no path at all."""
    path_prefixes: FolderOf = Field(default={})
    """Folders of other machines that paths of the table begin with, and which they are here, as `old=new` pairs:
    `C:\\photos=/photos,/srv/old=/photos`. Rows stay as they are."""
    url_hosts: Names = ()
    """Hosts (or s3/gs buckets) that `url` may name. Empty turns URLs off."""
    url_schemes: Schemes = ("https",)
    """Schemes that `url` may use, out of http, https, s3, gs, file."""
    url_private: bool = False
    """Whether allowed hosts may be at private or loopback addresses, as an object store in the same network is."""
    url_timeout_s: float = Field(default=20.0, gt=0, le=DAY_S)
    """Seconds for the photo of one URL to arrive, whatever the scheme."""
    max_photo_bytes: int = Field(default=50_000_000, ge=1)
    """Largest photo file. 24 MP JPEGs are about 10 MB."""
    max_inline_bytes: int = Field(default=1_000_000, ge=0)
    """Largest inline photo: messages lie in the broker's memory."""
    max_megapixels: float = Field(default=100.0, gt=0)
    """Largest photo in megapixels, known from its header before anything is decoded."""
    decode_threads: int = Field(default=0, ge=0)
    """Photos of bulk messages that one process reads and decodes side by side; 0 takes two for each core. More of them
    where files come from far away."""
    sandbox: Literal["off", "auto", "required"] = "auto"
    """`auto` decodes photos in processes of their own, confined as well as this machine can (`sightline doctor` says
    how); `required` does not start where limits, seccomp and Landlock are not all to be had; `off` decodes within the
    worker."""

    # -- the index
    index_kind: Literal["auto", "exact", "ivf", "hnsw"] = "auto"
    """`exact` compares all vectors; `ivf` and `hnsw` look at some of them. `auto` takes `exact` for small sets and
    `ivf` above. docs/benchmarks.md has the figures."""
    index_url: str = ""
    """Where generations, and models by `sightline export --upload`, are published for workers on other hosts: `s3://`,
    `gs://` or `file://` of a shared directory. Every host then keeps a verified copy in `SIGHTLINE_INDEX_DIR`. Unset,
    that folder itself is the place."""
    index_exact_up_to: int = Field(default=50_000, ge=0)
    """Photos up to which `auto` compares all vectors: some milliseconds a search."""
    index_memory_mb: int = Field(default=0, ge=0)
    """What the finished index may take, in megabytes; 0 allows half of this machine's memory. A kind that does not fit
    is not built, and the message says so."""
    index_recall: float = Field(default=0.97, gt=0, le=1)
    """Share of the true ten nearest that an index must find on a sample before it is published."""
    compact_share: float = Field(default=0.05, gt=0)
    """Rebuild when more than this share of the index changed since its last generation, whatever the hour."""
    compact_least: int = Field(default=10_000, ge=1)
    """Changes below which that is not worth a rebuild."""

    # -- search and answers
    max_staleness_s: float = Field(default=1.0, ge=0, le=DAY_S)
    """Seconds that a search may lag behind what other clients wrote. Removed photos are never shown."""
    min_seq_timeout_s: float = Field(default=5.0, gt=0, le=DAY_S)
    """Seconds that a search waits for the write it was told to see, before it answers `stale`."""
    rungs: Rungs = ("places", "geometry", "conflicts", "calibration")
    """What an answer stands on beside similarity: each of `places`, `geometry`, `conflicts` and `calibration` can be
    left out, and `time` added (what the photo's camera took minutes before and after). For `geometry` keypoints of
    every picture are kept in Postgres, 126 kB at the most, and found as it is added: a tenth of a second of a core.
    Left out for a large import, they are found by the next rebuild with it."""
    locate_threshold: float = Field(default=contract.DEFAULT_THRESHOLD, ge=-1, le=1)
    """Least similarity of the best witness where none could be compared by keypoints, and of the guide's rule, unless
    the caller names one; a caller's holds for all evidence. `sightline tune` tries others."""
    locate_neighbours: int = Field(default=8, ge=1)
    """Most similar trusted photos that are heard as witnesses."""
    locate_similarity_window: float = Field(default=0.1, ge=0)
    """A witness's similarity lies at most this far below the best one's."""
    locate_agree_m: float = Field(default=150.0, gt=0)
    """Metres within which two witnesses count as saying the same place."""
    locate_min_share: float = Field(default=0.6, gt=0, le=1)
    """Share of the votes that must fall on one place, where no witness could be compared by keypoints."""
    locate_min_witnesses: int = Field(default=2, ge=1)
    """Witnesses that must agree where none could be compared by keypoints: one photo alone has nobody to agree with."""
    false_answers: float = Field(default=0.05, ge=0.001, le=0.5)
    """Share of the answers that may be wrong. Which answers are sure enough is learnt at each rebuild, from 19 places
    (each within 50 m of one photo) with trusted photos on; the smaller this is, the more places it takes."""
    exam_photos: int = Field(default=1000, ge=0)
    """Trusted photos that a rebuild asks about as if they were not there, to learn from; 0 learns nothing."""

    # -- the nightly rebuild
    locate_pairs: int = Field(default=20, ge=1)
    """Pictures that a photo is compared with by keypoints at the most, some milliseconds each; up to three of a place.
    With 8 of them a look-alike place is missed now and then."""
    rebuild_at: str = Field(default="03:00", pattern=r"^([01]\d|2[0-3]):[0-5]\d$")
    """Time of the nightly rebuild, HH:MM in UTC. A missed night is made up at the next tick, a failed one
    within a quarter of an hour."""
    tick_every_s: float = Field(default=30.0, gt=0, le=DAY_S)
    """Seconds between two looks of the beat at what is due."""
    keep_generations: int = Field(default=3, ge=1)
    """Published generations that stay on disk."""
    quarantine_after: int = Field(default=3, ge=1)
    """Times that a photo, or a message, may take its worker down before it is left alone as `quarantined`."""
    reconcile_s: float = Field(default=30.0, gt=0, le=DAY_S)
    """Seconds between two looks at what lacks a vector, and that a photo may lack one before it is sent again, whatever
    has lost its message; the next time after twice as long, and so on up to an hour."""

    # -- one machine
    up_port: int = Field(default=6399, ge=0, le=65535)
    """Loopback port of the Valkey that `sightline up` starts. One that is taken is an error; 0 takes a free one and
    keeps it for the next start."""

    @field_validator("database_url")
    @classmethod
    def _postgres(cls, value: str) -> str:
        # SQLAlchemy 2.1 would take psycopg 3 for a bare postgresql:// URL, which is not installed.
        rest = checked(value.strip(), POSTGRES_SCHEMES, POSTGRES_LOOKS).partition("://")[2]
        return f"{POSTGRES_SCHEMES[-1]}://{rest}"

    @field_validator("broker_url", "result_backend")
    @classmethod
    def _redis(cls, value: str, info: ValidationInfo) -> str:
        replies = info.field_name == "result_backend"
        return value if replies and not value else checked_redis(value, beside=IN_MEMORY, replies=replies)

    @field_validator("photos_columns")
    @classmethod
    def _of_the_table(cls, value: dict[str, str]) -> dict[str, str]:
        if unknown := sorted(value.keys() - set(PHOTO_COLUMNS)):
            raise ValueError(f"{', '.join(unknown)}: the columns to rename are {', '.join(PHOTO_COLUMNS)}")
        if bad := [name for name in value.values() if not re.fullmatch(r"[A-Za-z_]\w*", name)]:
            raise ValueError(f"{bad[0]!r} is not a column's name")
        names = [value.get(column) or column for column in PHOTO_COLUMNS]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{', '.join(twice)} would be two columns at once")
        return value

    @field_validator("url_hosts")
    @classmethod
    def _lower(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(host.lower() for host in value)

    @field_validator("photo_roots")
    @classmethod
    def _absolute(cls, value: tuple[Path, ...]) -> tuple[Path, ...]:
        """As the disk spells them; links stay, for tables may name photos by them."""
        roots = [root.expanduser() for root in value]
        return tuple(Path(on_disk(str(root.resolve() if ".." in root.parts else root.absolute()))) for root in roots)

    @property
    def generations_dir(self) -> Path:
        return self.index_dir if self.index_dir is not None else self.data_dir / "index"

    @property
    def exports_dir(self) -> Path:
        return self.models_dir if self.models_dir is not None else self.data_dir / "models"

    @property
    def index_memory_bytes(self) -> float:
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return self.index_memory_mb * 1e6 or machine / 2

    @property
    def replies_url(self) -> str:
        return self.result_backend or self.broker_url

    @property
    def threads(self) -> int:
        return self.model_threads or len(os.sched_getaffinity(0))

    @property
    def decoders(self) -> int:
        return self.decode_threads or 2 * len(os.sched_getaffinity(0))

    def provenance_of(self, location_method: str | None) -> Provenance:
        """The provenance behind a `location_method` of the backend's; `derived` when it says nothing known."""
        return contract.provenance_of(location_method, self.location_methods)

    def as_env(self) -> dict[str, str]:
        """What another process needs in its environment to read these same settings."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return {PREFIX + name.upper(): listed.written(value) for name, value in given.items() if value is not None}


def load(*, note: bool = True, **overrides: Any) -> Settings:
    """Read the environment, then `<data_dir>/up.env` for what it leaves open. Raises pydantic.ValidationError, and
    Permanent where that file cannot be read.

    note: whether to read that file, which says where a `sightline up` runs, or did that was killed.
    """
    if not note:
        return Settings(**overrides)
    path = note_path(overrides)
    try:
        written = upenv.read(path)
    except OSError as exc:
        raise Permanent(
            Code.UNAVAILABLE,
            f"{path} cannot be read: {exc.strerror}. It is for the user who runs `sightline up` there; be that one, or "
            f"set {PREFIX}DATA_DIR to a folder of your own",
        ) from exc
    names = {name.upper() for name in os.environ} | {PREFIX + name.upper() for name in overrides}
    set_already = names | {name.removesuffix(FILE.upper()) for name in names}
    noted: dict[str, Any] = {
        name.removeprefix(PREFIX).lower(): value
        for name, value in written.items()
        if name.startswith(PREFIX) and name.upper() not in set_already
    }
    return Settings(**(noted | overrides))


def note_path(given: Mapping[str, Any] | None = None) -> Path:
    """Where the `sightline up` of this folder notes its addresses."""
    data_dir = (
        (given or {}).get("data_dir")
        or os.environ.get(PREFIX + "DATA_DIR")
        or Settings.model_fields["data_dir"].default
    )
    return Path(data_dir) / upenv.NAME
