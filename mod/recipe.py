"""The recipe of a training run: what fixes it beside the code, read from a TOML file."""

# Without postponed annotations: values are checked against the types themselves.
import difflib
import math
import tomllib
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

from huggingface_hub.dataclasses import type_validator

from longreel.errors import UsageError

#: Starts a model of the bundled geometry from random weights.
NEW_TINY = "new:longreel-tiny"
#: All bytes, and the marks of a stream.
LEAST_VOCABULARY = 256 + 5


@dataclass(frozen=True)
class ModelPart:
    """``[model]``: what is trained.

    Attributes:
        start: ``longreel-tiny``, a checkpoint folder (as ``longreel assemble`` makes), an open
            model by folder or hub name, or ``new:longreel-tiny`` for random weights.
        train: ``all`` weights, or ``lora``: low-rank updates of the language model's linear
            layers, beside connector and routers in full; the tower stays as it is.
        lora_rank: rank of the updates.
        lora_alpha: their scale is ``lora_alpha / lora_rank``.
        vocab_size: of the tokenizer that ``new:`` trains.
        keep_ratio: overrides the checkpoint's own, those of single layers too; 0.2 of an
            open model that has no router yet.
        router: what chooses tokens, and in which layers, in place of the start's own: any kind of
            :mod:`mod.config`, as in ``bounded``, ``random:all`` or ``skip:after-2``; new ones that
            learn begin untrained. Of an open model ``bounded`` (where None and it has none) or
            ``learned``.
    """

    start: str = NEW_TINY
    train: Literal["all", "lora"] = "all"
    lora_rank: int = 128
    lora_alpha: int = 256
    vocab_size: int = 512
    keep_ratio: float | None = None
    router: str | None = None


@dataclass(frozen=True)
class DataPart:
    """``[data]``: what it learns from.

    Attributes:
        narrations: Parquet, JSONL or CSV files, folders or globs with timestamped narrations of
            the user's own videos; empty trains on the generated world.
        frames: lengths of a sequence, in frames; each batch draws one. Of the generated world one
            batch in seven is ``long_frames`` long, so that the model also works far from
            where a stream opened.
        long_frames: see ``frames``.
        batch_frames: vision frames of one batch of one worker.
        read_share: share of the generated world's batches without frames, which teach to
            summarize summaries.
        held_out: share of the own videos (0-1) that are measured on and not learned from.
        augment: probability with which a narration is spoiled; the model reads and does not
            learn it.
    """

    narrations: list[str] = field(default_factory=list)
    frames: list[int] = field(default_factory=lambda: [8, 12, 16, 24])
    long_frames: int = 64
    batch_frames: int = 192
    read_share: float = 0.0
    held_out: float = 0.1
    augment: float = 0.0


@dataclass(frozen=True)
class TrainingPart:
    """``[training]``: how it learns.

    Attributes:
        seed: fixes weights, batches and augmentation.
        steps: optimizer steps.
        see_steps: the first of them, which teach the tower alone to see cuts, motion, colour
            and things of the generated world.
        see_frames: frames of a sequence in those steps.
        see_rate, learning_rate: peak learning rates of the two stages.
        tower_share: the tower's share of ``learning_rate``.
        warmup: steps over which a learning rate rises.
        weight_decay: AdamW's.
        silence_weight: sigma of the LIVE objective.
        perception_weight: weight of the auxiliary losses after ``see_steps``.
        precision: ``float32``, or ``bfloat16`` for autocast.
        gradient_checkpointing: recompute layers in the backward pass to save memory.
        save_every: steps between checkpoints from which a killed run goes on; the last
            step makes one too.
        evaluate_streams: streams of the generated world on which the result is measured.
    """

    seed: int = 0
    steps: int = 4400
    see_steps: int = 2000
    see_frames: int = 6
    see_rate: float = 1e-3
    learning_rate: float = 2e-3
    tower_share: float = 0.15
    warmup: int = 100
    weight_decay: float = 0.02
    silence_weight: float = 1.0
    perception_weight: float = 0.25
    precision: Literal["float32", "bfloat16"] = "float32"
    gradient_checkpointing: bool = False
    save_every: int = 400
    evaluate_streams: int = 40


@dataclass(frozen=True)
class ScalePart:
    """``[scale]``: where it runs.

    Attributes:
        workers: processes that train, each on its own batches.
        gpus_per_worker: 0 trains on the CPU, 1 on a GPU.
        strategy: ``ddp`` holds the model in every worker, ``fsdp2`` shards it.
        threads: CPU threads of a worker.
        retries: failures of workers or nodes after which the run still goes on by itself.
    """

    workers: int = 1
    gpus_per_worker: int = 0
    strategy: Literal["ddp", "fsdp2"] = "ddp"
    threads: int = 1
    retries: int = 3


@dataclass(frozen=True)
class TrainRecipe:
    """All parts of a run."""

    model: ModelPart = field(default_factory=ModelPart)
    data: DataPart = field(default_factory=DataPart)
    training: TrainingPart = field(default_factory=TrainingPart)
    scale: ScalePart = field(default_factory=ScalePart)

    def __post_init__(self) -> None:
        for name, value, least in (
            ("training.seed", self.training.seed, 0),
            ("training.steps", self.training.steps, 1),
            ("training.see_steps", self.training.see_steps, 0),
            ("training.see_frames", self.training.see_frames, 1),
            ("training.warmup", self.training.warmup, 0),
            ("training.save_every", self.training.save_every, 1),
            ("training.evaluate_streams", self.training.evaluate_streams, 0),
            ("data.batch_frames", self.data.batch_frames, 1),
            ("data.frames", min(self.data.frames, default=0), 1),
            ("data.long_frames", self.data.long_frames, 1),
            ("scale.workers", self.scale.workers, 1),
            ("scale.threads", self.scale.threads, 1),
            ("scale.retries", self.scale.retries, 0),
            ("model.lora_rank", self.model.lora_rank, 1),
            ("model.lora_alpha", self.model.lora_alpha, 1),
            ("model.vocab_size", self.model.vocab_size, LEAST_VOCABULARY),
        ):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, not {value}")
        self._check_numbers()
        self._check_stages()

    def _check_numbers(self) -> None:
        for name in ("see_rate", "learning_rate"):
            rate = getattr(self.training, name)
            if not 0.0 < rate < math.inf:
                raise ValueError(f"training.{name} must be above 0, not {rate}")
        for name in ("tower_share", "weight_decay", "silence_weight", "perception_weight"):
            weight = getattr(self.training, name)
            if not 0.0 <= weight < math.inf:
                raise ValueError(f"training.{name} must be 0 or more, not {weight}")
        for name in ("augment", "read_share", "held_out"):
            share = getattr(self.data, name)
            if not 0.0 <= share <= 1.0:
                raise ValueError(f"data.{name} must lie in [0, 1], not {share}")
        keep = self.model.keep_ratio
        if keep is not None and not 0.0 < keep <= 1.0:
            raise ValueError(f"model.keep_ratio must lie in (0, 1], not {keep}")
        if self.scale.gpus_per_worker not in (0, 1):
            raise ValueError(
                f"scale.gpus_per_worker must be 0 or 1, not {self.scale.gpus_per_worker}: more "
                "GPUs are more workers"
            )

    def _check_stages(self) -> None:
        seeing = self.training.see_steps
        if not seeing:
            return
        if self.data.narrations:
            raise ValueError(
                "training.see_steps must be 0 with data.narrations: own footage has no labels "
                "for what the tower is to see"
            )
        if self.model.train == "lora":
            raise ValueError(
                "training.see_steps must be 0 with model.train 'lora', which leaves the tower as "
                "it is"
            )
        if self.training.see_frames < 2:
            raise ValueError(
                f"training.see_frames must be at least 2, not {self.training.see_frames}: of one "
                "frame there is no motion to see"
            )
        if seeing >= self.training.steps:
            raise ValueError(
                f"training.see_steps must be below training.steps ({self.training.steps}), not "
                f"{seeing}: no word would be learned"
            )

    def as_dict(self) -> dict[str, Any]:
        """The recipe as nested plain values."""
        return asdict(self)


_Part = TypeVar("_Part")


def read_recipe(path: Path) -> TrainRecipe:
    """The recipe in a TOML file; what it leaves out has its default.

    Raises:
        UsageError: the file, or the field that cannot work.
    """
    try:
        tables = tomllib.loads(path.read_text())
    except OSError as failure:
        raise UsageError(f"{path}: {failure.strerror or failure}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as failure:
        raise UsageError(f"{path} is not TOML: {failure}") from None
    return recipe_of(tables, str(path))


def recipe_of(tables: dict[str, Any], source: str) -> TrainRecipe:
    """A recipe from nested plain values; ``source`` names them in errors.

    Raises:
        UsageError: a table or field is not known, or cannot have its value.
    """
    kinds = {f.name: f.default_factory for f in fields(TrainRecipe)}
    parts: dict[str, Any] = {}
    for name, values in tables.items():
        kind = kinds.get(name)
        if kind is None or not isinstance(values, dict):
            raise UsageError(f"{source}: no table [{name}]{_hint(name, kinds)}")
        parts[name] = _part(kind, name, values, source)  # type: ignore[arg-type]
    try:
        return TrainRecipe(**parts)
    except ValueError as failure:
        raise UsageError(f"{source}: {failure}") from None


def _part(kind: type[_Part], name: str, values: dict[str, Any], source: str) -> _Part:
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    for key, value in values.items():
        if key not in known:
            raise UsageError(f"{source}: [{name}] has no field {key!r}{_hint(key, known)}")
        wanted = known[key].type
        if type(value) is int and wanted in (float, float | None):
            values = {**values, key: float(value)}
        try:
            type_validator(key, values[key], wanted)
        except TypeError as failure:
            reason = str(failure).splitlines()[-1].strip()
            raise UsageError(f"{source}: [{name}] {reason}") from None
    return kind(**values)


def _hint(word: str, known: dict[str, Any]) -> str:
    near = difflib.get_close_matches(word, known, 1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"
