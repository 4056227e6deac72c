"""Whether the net of a run can be built of its inputs and trained so; asked before the run takes its name.

The net is built without memory or weights. A pretrained model is stood in for by one with the same width and
number of blocks, which its descriptor tells: `FineTune` checks the one as it checks the other.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cluster.errors import ConfigError
from fusion.nets import net_class, net_config
from fusion.nets._layers import Net
from fusion.tasks import Task
from jobs.catalog.branches import check_inputs, descriptor_of, publishes_inputs
from jobs.catalog.features import feature_folders
from jobs.training.input_names import input_folders
from jobs.training.run import TrainConfig


class StandIn(nn.Module):
    """The outline of a pretrained model (`fusion.nets.finetune.Branch`); it cannot be run.

    Args:
        facts: of the table of inputs that the model reads.
    """

    def __init__(self, facts: Mapping[str, Any]) -> None:
        super().__init__()
        descriptor = descriptor_of(facts)
        published = descriptor.inputs
        assert published is not None
        self.dim = descriptor.layer_dim
        self.has_levels = not published.stages
        kind = str(descriptor.options.get("kind", ""))
        self.depth = descriptor.num_layers - 1 if self.has_levels else published.stages[kind]
        self.stem = nn.Linear(1, 1)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv1d(1, 1, 1) if at < published.convolutions else nn.Linear(1, 1))
            for at in range(self.depth)
        )

    @property
    def blocks(self) -> list[nn.Module]:
        """One layer each."""
        return list(self.layers)

    def level(self, parameter: str) -> int:
        """0 of the stem, 1 to `depth` of the blocks."""
        place, _, rest = parameter.partition(".")
        return 0 if place == "stem" else 1 + int(rest.partition(".")[0])

    def forward(self, *_: Any) -> tuple[Tensor, Tensor]:
        """Never called."""
        raise NotImplementedError


def check_built(config: TrainConfig, tasks: Mapping[str, Task]) -> None:
    """Refuse a net, options or recipe that do not go with the inputs.

    Args:
        config: of the run.
        tasks: that it is to predict.

    Raises:
        ConfigError: with what to type in their place.
        NotPreparedError: an input is not there.
    """
    tables = feature_folders(config.root)
    folders = input_folders(config.root, config.inputs, tables)
    inputs = {name: tables[folder] for name, folder in folders.items()}
    owned = [facts for facts in inputs.values() if publishes_inputs(facts)]
    check_inputs(config.net, owned, config.normalise)
    _check_pca(config, inputs)
    try:
        net = _outline(config, inputs, tasks)
    except ValueError as error:
        raise ConfigError(f"{config.net}: {error}") from error
    _check_recipe(config, net)


def _outline(
    config: TrainConfig, inputs: Mapping[str, Mapping[str, Any]], tasks: Mapping[str, Task]
) -> Net:
    """The net of a run, without values."""
    with torch.device("meta"):
        branches = {n: StandIn(facts) for n, facts in inputs.items() if publishes_inputs(facts)}
        more = {"branches": branches} if branches else {}
        net: Net = net_class(config.net)(
            net_config(config.net, config.net_options),
            dims={name: config.pca.get(name) or _width(facts) for name, facts in inputs.items()},
            outputs={name: task.outputs for name, task in tasks.items()},
            **more,
        )
    return net


def _check_pca(config: TrainConfig, inputs: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse components of what a model reads, and more or less of them than there can be.

    Names of inputs that are not there are refused where they are typed (`check_option_names`).
    """
    for name, width in config.pca.items():
        facts = inputs.get(name, {})
        if publishes_inputs(facts):
            raise ConfigError(
                f"--pca {name}={width}: a model of the net reads {name} as it is; leave it out"
            )
        # The spread of the steps of a clip stands beside their mean.
        most = _width(facts) * (2 if config.pool == "mean_std" else 1)
        if width < 1 or ("dim" in facts and width > most):
            said = f"1 to {most}" if "dim" in facts else "1 or more"
            raise ConfigError(f"--pca {name}={width}: expected {said} components")


def _check_recipe(config: TrainConfig, net: Net) -> None:
    """Refuse what a net of this kind cannot be trained with; one that is solved reads none of it."""
    if net.convex:
        return
    if config.mixup and net.axis != "clip":
        raise ConfigError(
            f"--mixup {config.mixup:g}: {config.net} reads whole dialogues, whose turns cannot be "
            "mixed; leave it out"
        )
    if config.mixup and net.reads_targets:
        raise ConfigError(
            f"--mixup {config.mixup:g}: losses of {config.net} read the targets of single clips, "
            "which mixed ones do not have; leave it out"
        )
    if config.balanced and net.axis != "clip":
        raise ConfigError(
            f"--balanced: {config.net} reads whole dialogues; leave it out, or type --class-weights"
        )
    if config.feature_noise and net.owns_encoders:
        raise ConfigError(
            f"--feature-noise {config.feature_noise:g}: tokens, sound and pictures cannot be given "
            "noise; leave it out"
        )
    trained = [name for name, parameter in net.named_parameters() if parameter.requires_grad]
    for prefix in config.lr_factors:
        # What the parameters of a pretrained model are called, only the model knows.
        of_model = net.owns_encoders and f"{prefix}.".startswith("branches.")
        if not of_model and not any(name.startswith(prefix) for name in trained):
            parts = sorted({name.partition(".")[0] for name in trained})
            raise ConfigError(
                f"--lr-factors {prefix}=...: no parameter that is trained is called so; "
                f"expected the beginning of a name, such as {', '.join(parts)}"
            )


def _width(facts: Mapping[str, Any]) -> int:
    return int(facts.get("dim") or 1)
