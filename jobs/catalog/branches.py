"""The pretrained models that a net of `--net finetune` owns, loaded from the store of weights.

An input of such a net may be a table of published inputs (`minilm:publish=inputs`). Its card names the
weights that training started from by URI and hash; beside the card lies only what training changed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from cluster import storage
from cluster.errors import ConfigError
from encoders import ENCODERS
from encoders.digests import without_path
from encoders.registry import describe, find, load_branch
from encoders.spec import GENERAL_OPTIONS, Descriptor
from encoders.store import default_store, local_paths
from fusion.predictor import Card
from jobs.catalog import layout
from jobs.catalog.missing_rows import heard_by, typed

OWNER = "finetune"
"""The net that reads published inputs."""


def publishes_inputs(facts: Mapping[str, Any]) -> bool:
    """Whether a feature table holds what a model is given, by its descriptor or by a card."""
    return dict(facts.get("options", {})).get("publish") == "inputs"


def states_of(name: str) -> str:
    """The frozen encoder beside one that is trained, as both are typed.

    >>> states_of("minilm:context=past,publish=inputs"), states_of("clip_vit:most=4,publish=inputs")
    ('minilm:context=past', 'clip_vit')
    """
    plain, _, options = name.partition(":")
    written = [option for option in options.split(",") if option]
    if "publish=inputs" not in written:
        return name
    # Some options say how inputs are published, and of states mean nothing.
    spec = find(plain)
    alone = set(spec.inputs.options if spec.inputs else ()) - {*spec.options, *GENERAL_OPTIONS}
    kept = [
        option
        for option in written
        if option != "publish=inputs" and option.partition("=")[0] not in alone
    ]
    return ":".join([plain, ",".join(kept)]) if kept else plain


def facts_of_owned(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What the card of a net says beyond that of an input that a model of its own reads.

    Such an input is never pooled; from which weights training starts is part of what the net is.
    """
    return {"pool": "none", "weights": _weights_of(facts)} if publishes_inputs(facts) else {}


def input_facts(root: str, descriptor: Mapping[str, Any], folder: str, pool: str) -> dict[str, Any]:
    """Facts of one input for the card of a net; of transcribed words, also their transcriber."""
    facts = {
        "features": folder,
        "name": descriptor.get("name", folder),
        "options": dict(descriptor.get("options", {})),
        "fingerprint": descriptor.get("fingerprint"),
        "pool": pool,
    }
    if heard := heard_by(root, descriptor):
        facts["transcriber"] = {key: heard[key] for key in ("name", "options")}
    return {**facts, **facts_of_owned(facts)}


def branches_of(card: Card, store: str) -> dict[str, nn.Module]:
    """Input -> the model that reads it, as it was pretrained; empty for a net that owns none.

    Args:
        card: of the net.
        store: folder or URI of weights.

    Raises:
        ConfigError: another net was to read published inputs, `finetune` none, or here are other weights.
        WeightsError: the store does not hold them.
    """
    owned = {name: facts for name, facts in card.inputs.items() if publishes_inputs(facts)}
    check_inputs(card.net, list(owned.values()), card.normalise)
    found: dict[str, nn.Module] = {}
    for name, facts in owned.items():
        if facts["weights"] != (here := _weights_of(facts)):
            raise ConfigError(
                f"the net was fine-tuned from {facts['weights']}; here {facts['name']} has {here}; "
                "type: affuse encode and affuse train again, which start from these"
            )
        descriptor = descriptor_of(facts)
        found[name] = load_branch(descriptor, local_paths(descriptor.weights, store))
    return found


def check_inputs(net: str, owned: Sequence[Mapping[str, Any]], normalise: str) -> None:
    """Refuse a net and inputs that do not go together.

    Args:
        net: key of fusion.nets.NETS.
        owned: facts of the inputs that were published for a model.
        normalise: of the features, by speaker.

    Raises:
        ConfigError: with what to type in their place.
    """
    if owned and net != OWNER:
        names = " ".join(typed(facts) for facts in owned)
        raise ConfigError(f"{net} cannot read {names}, which a model reads; type --net {OWNER}")
    if not owned and net == OWNER:
        raise ConfigError(
            f"--net {OWNER} needs an input that a model reads, e.g. --inputs minilm:publish=inputs; "
            "type first: affuse encode --root ... --encoders minilm:publish=inputs"
        )
    if owned and normalise != "none":
        raise ConfigError(
            f"--normalise {normalise}: tokens, sound and pictures stay as they are; leave it out"
        )


def store_of_net(card: Card, folder: str, run: str) -> str:
    """The store of a net where none is named: the one it was trained from, else that of its root.

    A root that was carried to another machine names a folder that is not there; any store will do whose
    weights are those of the card.

    Args:
        card: of the net; one that owns no encoder needs no store.
        folder: of the net, below `<root>/runs/` or `<root>/bundles/`.
        run: that made it.
    """
    if card.net != OWNER:
        return ""
    root = layout.root_of_net(folder)
    config = layout.run_uri(root, run, layout.CONFIG)
    named = storage.read_json(config).get("store") if storage.exists(config) else None
    if named and storage.is_local(named) and not storage.exists(named):
        named = None
    return str(named or default_store(root))


def _weights_of(facts: Mapping[str, Any]) -> list[list[str | None]]:
    """Name, origin and hash of the weights behind a table of published inputs."""
    weights = descriptor_of(facts).weights
    return [[each.name, without_path(each.uri), each.sha256] for each in weights]


def descriptor_of(facts: Mapping[str, Any]) -> Descriptor:
    """The encoder behind a feature table or an input of a card, by the facts of either."""
    options = ",".join(f"{name}={value}" for name, value in facts["options"].items())
    assert facts["name"] in ENCODERS
    return describe(f"{facts['name']}:{options}")
