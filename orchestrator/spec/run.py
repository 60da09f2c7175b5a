"""The run file: everything that a user may say about one run."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from orchestrator.spec.agreement import disagreements
from orchestrator.spec.data import Data
from orchestrator.spec.monitor import Monitor
from orchestrator.spec.parallelism import AUTO, Parallelism
from orchestrator.spec.policy import Environment, Retry, check_env_name
from orchestrator.spec.problems import Disagreement, suggest, without_credentials
from orchestrator.spec.quantities import Duration, Money
from orchestrator.spec.resources import Elastic, Resources
from orchestrator.spec.search import Search
from orchestrator.spec.section import Label, Section, Whole
from orchestrator.spec.training import Checkpoint, InitFrom, Train
from trainers.catalogue import RECIPES

BUNDLE_PREFIX = "bundle:"
_BUNDLE = re.compile(r"bundle:[0-9a-f]{64}")
_ENTRYPOINT = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_STORAGE = re.compile(r"([a-z][a-z0-9+.-]*:/)?/\S+")

EnvName = Annotated[str, AfterValidator(check_env_name)]
Argument = Annotated[str, Field(max_length=4096)]


def _recipe(name: str) -> str:
    if name not in RECIPES:
        raise ValueError(f"is not a recipe, {suggest(name, RECIPES)}")
    return name


def _entrypoint(text: str) -> str:
    if not _ENTRYPOINT.fullmatch(text):
        raise ValueError("must be a function by module and name, such as package.module:make_task")
    return text


def _script(path: str) -> str:
    if re.search(r"\s-", path):
        raise ValueError("must be the path of the script alone: its arguments belong into args, as a list")
    if not path or ".." in path.split("/"):
        raise ValueError("must be a path below the code directory")
    return path


def _code(text: str) -> str:
    if text.startswith(BUNDLE_PREFIX) and not _BUNDLE.fullmatch(text):
        raise ValueError("must be a directory, or bundle: and the 64 hex digits of a sha256")
    return text


def _storage(url: str) -> str:
    if not _STORAGE.fullmatch(url):
        raise ValueError("must be a URL such as s3://bucket/prefix, or an absolute path")
    return without_credentials("storage", url)


Recipe = Annotated[str, AfterValidator(_recipe)]
Entrypoint = Annotated[str, AfterValidator(_entrypoint)]
Script = Annotated[str, AfterValidator(_script)]
Code = Annotated[str, AfterValidator(_code)]
Storage = Annotated[str, AfterValidator(_storage)]


class RunSpec(Section):
    """One run. Every key is optional except `name` and one of `recipe`, `entrypoint` and `script`."""

    name: Annotated[Label, Field(description="Lower-case letters, digits and hyphens, at most 63.")]
    recipe: Annotated[Recipe | None, Field(description="A built-in recipe.")] = None
    entrypoint: Annotated[Entrypoint | None, Field(description="package.module:function, which makes the task.")] = None
    script: Annotated[Script | None, Field(description="A training script, run unchanged.")] = None
    code: Annotated[Code | None, Field(description="Directory that is shipped to the nodes.")] = None
    args: Annotated[tuple[Argument, ...], Field(max_length=1000, description="Arguments of the script.")] = ()
    launcher: Annotated[Literal["native", "ray_train"], Field(description="What starts the ranks.")] = "native"
    env: Annotated[dict[EnvName, str], Field(description="Environment of the ranks.", default_factory=dict)]
    secrets: Annotated[tuple[EnvName, ...], Field(description="Names of secrets that become environment.")] = ()
    environment: Annotated[Environment | None, Field(description="The Python of the ranks.")] = None
    storage: Annotated[Storage | None, Field(description="Where checkpoints live: a URL or an absolute path.")] = None
    data: Annotated[Data, Field(description="Samples.")] = Data.model_validate({})
    model: Annotated[dict[str, Any], Field(description="The recipe's own keys.", default_factory=dict)]
    train: Annotated[Train, Field(description="Optimization.")] = Train()
    parallelism: Annotated[
        Parallelism,
        Field(description="How the model is divided; auto: as the planner finds cheapest."),
        WithJsonSchema({"anyOf": [Parallelism.model_json_schema(), {"const": AUTO}]}, mode="validation"),
    ] = Parallelism()
    init_from: Annotated[InitFrom | None, Field(description="Weights to begin with, in place of random ones.")] = None
    deepspeed: Annotated[
        dict[str, Any],
        Field(description="DeepSpeed's own keys, or the path of a JSON file with them.", default_factory=dict),
        WithJsonSchema({"anyOf": [{"type": "object"}, {"type": "string"}]}, mode="validation"),
    ]
    resources: Annotated[Resources, Field(description="What every worker gets.")] = Resources()
    elastic: Annotated[Elastic | None, Field(description="World sizes that the run may be moved to.")] = None
    checkpoint: Annotated[Checkpoint, Field(description="When to seal checkpoints.")] = Checkpoint.model_validate({})
    retry: Annotated[Retry, Field(description="Restart budgets.")] = Retry()
    queue: Annotated[Label, Field(description="The queue to wait in.")] = "default"
    priority: Annotated[Whole, Field(ge=0, le=100, description="Higher goes first.")] = 50
    start_timeout: Annotated[Duration, Field(description="How long a rank may take to its first sign of life.")] = 120.0
    hang_timeout: Annotated[Duration, Field(description="How long a rank may live without progress.")] = 600.0
    max_duration: Annotated[
        Duration | None, Field(description="The run is ended after this time; pauses do not count.")
    ] = None
    max_cost: Annotated[Money | None, Field(description="The run is ended at this cost.")] = None
    search: Annotated[Search | None, Field(description="Makes it a sweep.")] = None
    monitor: Annotated[Monitor | None, Field(description="Watches the registered model.")] = None

    @model_validator(mode="before")
    @classmethod
    def _fill_source(cls, raw: Any) -> Any:
        if not isinstance(raw, dict) or not isinstance(raw.get("recipe"), str) or raw["recipe"] not in RECIPES:
            return raw
        data = raw.get("data", {})
        if not isinstance(data, dict) or data.get("source"):
            return raw
        return {**raw, "data": {**data, "source": RECIPES[raw["recipe"]].source}}

    @model_validator(mode="after")
    def _agree(self) -> RunSpec:
        problems = disagreements(self)
        if problems:
            raise Disagreement(problems)
        return self

    @property
    def kind(self) -> Literal["recipe", "entrypoint", "script"]:
        return "recipe" if self.recipe else "entrypoint" if self.entrypoint else "script"

    @property
    def target(self) -> str:
        """The recipe's name, the function, or the script's path."""
        return self.recipe or self.entrypoint or self.script or ""

    @property
    def bundle(self) -> str | None:
        """The sha256 of the shipped code, where it has been shipped."""
        code = self.code or ""
        return code.removeprefix(BUNDLE_PREFIX) if code.startswith(BUNDLE_PREFIX) else None
