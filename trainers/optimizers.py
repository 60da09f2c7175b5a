"""The optimizers: what DeepSpeed is told or given, and which parameters learn at which rate.

None of them compiles anything inside a run: DeepSpeed's own Adam and Lion are C++ or CUDA extensions, its Muon is wrapped
in torch.compile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Any

import torch
from deepspeed.runtime.engine import DeepSpeedEngine
from torch import nn

from trainers.config import InitFrom, Train
from trainers.errors import BadConfig

ParameterGroup = dict[str, Any]
MakeOptimizer = Callable[[list[ParameterGroup]], torch.optim.Optimizer]


def deepspeed_optimizer(train: Train) -> dict[str, Any] | None:
    """DeepSpeed's `optimizer` section; None where `client_optimizer` makes it."""
    common = {"lr": _peak(train), "weight_decay": train.weight_decay}
    match train.optimizer:
        case "sgd":
            return {"type": "SGD", "params": {**common, "momentum": train.momentum}}
        case "adamw" | "adam":
            decoupled = train.optimizer == "adamw"
            adam = {"betas": list(train.betas), "torch_adam": True, "adam_w_mode": decoupled, "fused": True}
            return {"type": "AdamW" if decoupled else "Adam", "params": {**common, **adam}}
        case "lion" | "muon":
            return None


def client_optimizer(model: nn.Module, train: Train) -> MakeOptimizer | None:
    """What makes the optimizer from its parameter groups, where DeepSpeed's would be compiled in the run."""
    match train.optimizer:
        case "lion":
            return lambda groups: Lion(groups, lr=_peak(train), betas=train.betas, weight_decay=train.weight_decay)
        case "muon":
            hidden = {id(parameter) for parameter in hidden_matrices(model)}
            return lambda groups: _muon(groups, hidden, train)
        case _:
            return None


def parameter_groups(model: nn.Module, train: Train, init: InitFrom | None) -> list[Any]:
    """The parameters that learn: a plain list where all learn alike, else groups, the highest rate first.

    Raises BadConfig for a pattern that matches nothing, or when everything is frozen.
    """
    factors = _factors(model, init)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = train.weight_decay_on == "all" or parameter.ndim > 1
            groups.setdefault((factors.get(name, 1.0), decays), []).append(parameter)
    if not groups:
        raise BadConfig("init_from.freeze", list(init.freeze) if init else [], "must leave something to learn")
    if list(groups) == [(1.0, True)]:
        return groups[1.0, True]
    ordered = sorted(groups, reverse=True)
    return [_group(groups[key], *key, train) for key in ordered]


def freeze(model: nn.Module, patterns: tuple[str, ...]) -> None:
    """What they match does not learn. Raises BadConfig for a pattern that matches nothing."""
    for index, pattern in enumerate(patterns):
        for parameter in _matching(model, pattern, f"init_from.freeze[{index}]").values():
            parameter.requires_grad_(False)


def scale_learning_rates(engine: DeepSpeedEngine, by: float) -> None:
    """Multiply every group's peak and present learning rate. The scheduler's state keeps the peaks in checkpoints."""
    scheduler: Any = engine.lr_scheduler
    scheduler.base_lrs = [each * by for each in scheduler.base_lrs]
    for group in _groups(engine):
        group["lr"] *= by


class Rates:
    """An engine's rates as its run file says them: learning rates, momentum, decay. What is loaded brings others."""

    def __init__(self, engine: DeepSpeedEngine) -> None:
        scheduler: Any = engine.lr_scheduler
        self._peaks = list(scheduler.base_lrs)
        self._groups = [_told(each) for each in _groups(engine)]

    def put(self, engine: DeepSpeedEngine, ratio: float = 1.0) -> None:
        """Train with them again from here on, at the place that the schedule has come to. `ratio`: a plateau's."""
        scheduler: Any = engine.lr_scheduler
        scheduler.base_lrs = [each * ratio for each in self._peaks]
        factors = [each(scheduler.last_epoch) for each in scheduler.lr_lambdas]
        for group, told, peak, factor in zip(_groups(engine), self._groups, scheduler.base_lrs, factors, strict=True):
            group.update(told, lr=peak * factor)


def _groups(engine: DeepSpeedEngine) -> list[ParameterGroup]:
    optimizer: Any = engine.optimizer
    groups: list[ParameterGroup] = optimizer.param_groups
    return groups


def _told(group: ParameterGroup) -> ParameterGroup:
    """What the run file says of a group, beside its learning rate."""
    return {name: group[name] for name in ("weight_decay", "momentum", "betas", "initial_lr") if name in group}


def hidden_matrices(model: nn.Module) -> Iterator[nn.Parameter]:
    """What Muon is for: the matrices between the embeddings and the model's last matrix, which is its output layer.

    Filters of a convolution are left to AdamW: DeepSpeed 0.19's Muon breaks on them.
    """
    embeddings = {id(each.weight) for each in model.modules() if isinstance(each, nn.Embedding)}
    matrices = [each for each in model.parameters() if each.ndim == 2 and id(each) not in embeddings]
    yield from matrices[:-1]


class Lion(torch.optim.Optimizer):
    """The sign of a momentum (Chen et al. 2023, arXiv 2302.06675, algorithm 2); weight decay is decoupled.

    Its authors take a learning rate three to ten times lower than AdamW's, and betas [0.9, 0.99].
    """

    def __init__(
        self, params: list[Any], *, lr: float, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: torch.Tensor, gradient: torch.Tensor, group: ParameterGroup) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum, (beta1, beta2) = state["momentum"], group["betas"]
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(momentum.lerp(gradient, 1 - beta1).sign_(), alpha=-group["lr"])
        momentum.lerp_(gradient, 1 - beta2)


def _peak(train: Train) -> float:
    assert isinstance(train.lr, float)  # `auto` was found by now: trainers.automatic
    return train.lr


def _group(parameters: list[nn.Parameter], factor: float, decays: bool, train: Train) -> ParameterGroup:
    return {
        "name": f"lr x {factor:g}{'' if decays else ', without weight decay'}",  # DeepSpeed asks it of groups beside experts
        "params": parameters,
        "lr": _peak(train) * factor,
        "weight_decay": train.weight_decay if decays else 0.0,
    }


def _factors(model: nn.Module, init: InitFrom | None) -> dict[str, float]:
    factors: dict[str, float] = {}
    for index, group in enumerate(init.groups if init is not None else ()):
        for name in _matching(model, group.match, f"init_from.groups[{index}].match"):
            factors.setdefault(name, group.lr_factor)
    return factors


def _matching(model: nn.Module, pattern: str, path: str) -> dict[str, nn.Parameter]:
    found = {name: each for name, each in model.named_parameters() if fnmatchcase(name, pattern)}
    if not found:
        names = [name for name, _ in model.named_parameters()]
        raise BadConfig(path, pattern, f"matches no parameter; there are {', '.join(names[:8])} ({len(names)} in all)")
    return found


def _muon(groups: list[Any], hidden: set[int], train: Train) -> torch.optim.Optimizer:
    """Muon for the hidden matrices, AdamW for the rest (Jordan et al. 2024, kellerjordan.github.io/posts/muon)."""
    from deepspeed.runtime.zero.muon.muon_optimizer import MuonWithAuxAdam

    _run_muon_uncompiled()
    parts: list[ParameterGroup] = []
    for group in groups if isinstance(groups[0], dict) else [{"params": groups}]:
        common = {"lr": group.get("lr", _peak(train)), "weight_decay": group.get("weight_decay", train.weight_decay)}
        for use_muon in (True, False):
            half = [each for each in group["params"] if (id(each) in hidden) is use_muon]
            for parameter in half:
                parameter.use_muon = use_muon
            own = {"momentum": train.momentum} if use_muon else {"betas": train.betas, "eps": 1e-8}
            if half:
                parts.append({"params": half, "use_muon": use_muon, **common, **own})
    optimizer: torch.optim.Optimizer = MuonWithAuxAdam(parts, adam_optimizer=torch.optim.AdamW)
    return optimizer


def _run_muon_uncompiled() -> None:
    """DeepSpeed decorates Muon's arithmetic with torch.compile, which would call a compiler in the middle of the run."""
    from deepspeed.runtime.zero.muon import muon_optimizer, original_muon

    for name in ("zeropower_via_newtonschulz5", "zeropower_via_gram_newtonschulz", "muon_update"):
        plain = getattr(getattr(original_muon, name), "_torchdynamo_orig_callable", None)
        for module in (original_muon, muon_optimizer):
            if plain is not None and hasattr(module, name):
                setattr(module, name, plain)
