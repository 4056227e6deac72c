"""Bundles: everything that scoring a raw clip needs, in one folder.

`<root>/bundles/<name>/bundle.json` is the commit; beside it `nets/<run>/seed=S/` holds the networks
(safetensors and their JSON), `predictions.parquet`, `fused.parquet`, `covered.parquet` and `results.json` how
what ships and the fusion were judged.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from cluster import storage
from cluster.errors import ConfigError, NotPreparedError, TableError
from cluster.settings import nearest
from cluster.stamps import changed_s
from jobs.catalog import layout
from jobs.catalog.judged_files import KEY as JUDGED
from jobs.catalog.judged_files import hash_of, publish_over
from jobs.catalog.manifest import read_dataset
from jobs.catalog.names import checked_name
from jobs.catalog.predictions import folds_and_seeds

NET_FILES = (layout.WEIGHTS, layout.CARD)


def publish(
    root: str, name: str, facts: Mapping[str, Any], files: Mapping[str, bytes] | None = None
) -> None:
    """Commit a bundle, whose nets are there, with the files beside it."""
    publish_over(layout.bundle_uri(root, name), {"name": name, **facts}, files or {})


def read_bundle(root: str, name: str) -> dict[str, Any]:
    """The facts of a bundle.

    Raises:
        NotPreparedError: there is none of that name, naming the nearest and the step that comes next.
    """
    uri = layout.bundle_uri(root, name)
    if storage.exists(storage.join(uri, layout.BUNDLE)):
        return bundle_facts(uri)
    if known := newest_first(root):
        hint = nearest(name, known)
    else:
        read_dataset(root)  # says what to type where there is no dataset
        hint = "there is none at all"
    step = f"ensemble --root {shlex.quote(root)}"
    if not layout.runs_there(root):
        hint, step = f"{hint}, and no run", f"train --root {shlex.quote(root)} --inputs ..."
    raise NotPreparedError(f"no bundle {name!r} under {root}; {hint}; type: affuse {step}")


def bundle_facts(uri: str) -> dict[str, Any]:
    """Read and check the bundle.json of a folder.

    Raises:
        ConfigError: the bundle or a member has a name that would leave its folder.
        TableError: the file is damaged, or describes no bundle.
    """
    where = storage.join(uri, layout.BUNDLE)
    facts = storage.read_json(where)
    try:
        names = [str(facts["name"]), *(str(member["run"]) for member in facts["members"])]
    except (KeyError, TypeError) as error:
        raise TableError(f"{where}: describes no bundle: expected a name and members") from error
    for name in names:
        checked_name(name, f"{where}: the name")
    return dict(facts)


def digest(facts: Mapping[str, Any]) -> str:
    """What a bundle is recognised by: all that scoring reads of it, the hashes of its weights among that."""
    return hash_of(storage.json_bytes(read_by_scoring(facts)))


def read_by_scoring(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts of a bundle that shape what it says of clips: not where it was made, how, and how it was judged.

    As they are read back: facts that were made in memory have tuples where JSON has lists.
    """
    kept = {key: value for key, value in facts.items() if key not in ("config", JUDGED)}
    if "imported" in kept:
        # Members of predictions are known by their names, wherever they lie.
        kept["imported"] = [PurePosixPath(file).stem for file in kept["imported"]]
    return dict(json.loads(storage.json_bytes(kept)))


def newest_first(root: str) -> list[str]:
    """Names of the bundles that are whole, the one that was written last first."""
    files = {
        name: layout.bundle_uri(root, name, layout.BUNDLE) for name in layout.bundles_there(root)
    }
    written = {}
    for name, uri in files.items():
        if storage.exists(uri):
            fs, path = storage.filesystem(uri)
            written[name] = changed_s(fs.info(path)) or 0.0
    return sorted(written, key=lambda name: written[name], reverse=True)


def members_elsewhere(facts: Mapping[str, Any]) -> list[str]:
    """Members of predictions alone, imported or of a large model: a bundle cannot ask them of other clips."""
    imported = [PurePosixPath(file).stem for file in facts.get("imported", ())]
    elsewhere = [*imported, *facts.get("asked", ())]
    return [name for name in elsewhere if name in facts["rule"]["members"]]


def asked_members(facts: Mapping[str, Any]) -> list[str]:
    """Members that are a large model's answers: other clips are scored without them."""
    return [name for name in facts.get("asked", ()) if name in facts["rule"]["members"]]


def was_asked(root: str, run: str) -> bool:
    """Whether a run is the answers of a large model (`affuse ask`), and so has no nets."""
    return storage.exists(layout.run_uri(root, run, layout.ASKED))


HOW_ASKED = (
    "model", "show", "transcriber", "context", "frames", "question", "orders", "how", "limits",
)  # fmt: skip
"""Fields of `affuse ask` that shape its answers to a clip, and how hard its server may be worked."""


def ways_of_asking(root: str, runs: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Run of `affuse ask` among some runs -> how its model was asked, for clips to come."""
    configs = {
        run: storage.read_json(layout.run_uri(root, run, layout.CONFIG))
        for run in runs
        if was_asked(root, run)
    }
    return {
        run: {key: config[key] for key in HOW_ASKED if key in config}
        for run, config in configs.items()
    }


def was_untrained(root: str, run: str) -> bool:
    """Whether nobody trained a run: a large model was asked, or an encoder says its scores itself."""
    return was_asked(root, run) or storage.exists(layout.run_uri(root, run, layout.ANSWERS))


def check_asked(root: str, runs: Sequence[str]) -> None:
    """Refuse runs of `affuse ask` that were stopped: some of their folds would count for all.

    Raises:
        NotPreparedError: one has no summary.
    """
    for run in runs:
        if was_asked(root, run) and not storage.exists(layout.run_uri(root, run, layout.SUMMARY)):
            config = layout.run_uri(root, run, layout.CONFIG)
            raise NotPreparedError(
                f"run {run!r} was stopped before all was answered; type: "
                f"affuse ask --config {shlex.quote(config)}"
            )


def check_speaks_of_others(facts: Mapping[str, Any]) -> None:
    """Refuse a bundle whose fusion reads members that nobody can ask about other clips.

    Raises:
        ConfigError: what ships reads predictions that were imported or asked for.
    """
    if mute := members_elsewhere(facts):
        raise ConfigError(
            f"bundle {facts['name']!r} has members of asked or imported predictions, which say nothing of "
            f"other clips: {', '.join(mute)}; type: affuse ensemble --runs ... without them"
        )


def check_has_nets(facts: Mapping[str, Any]) -> None:
    """Refuse a bundle that cannot score other clips, not even without the large models among its members.

    Raises:
        ConfigError: what ships reads predictions that were imported, or nothing but a large model's answers.
    """
    asked = asked_members(facts)
    if members_elsewhere(facts) != asked or len(facts["rule"]["members"]) == len(asked):
        check_speaks_of_others(facts)


def nets_of_run(root: str, run: str) -> dict[str, str]:
    """Folders of the nets that predict clips outside the folds of a run: `seed=S` -> folder.

    A run with folds speaks through its refit on all rows, a run with a fixed split through the nets of that
    split.

    Raises:
        NotPreparedError: the run has folds and no refit.
        ConfigError: a large model was asked, there is no net.
    """
    if was_asked(root, run):
        raise ConfigError(
            f"run {run!r} is the answers of a large model to its held-out clips, and has no net for "
            "others; type other --runs"
        )
    refit = layout.run_uri(root, run, layout.REFIT)
    refits = {name: storage.join(refit, name) for name in storage.names(refit)}
    refits = {
        name: uri
        for name, uri in refits.items()
        if storage.exists(storage.join(uri, layout.WEIGHTS))
    }
    if refits:
        return refits
    pairs = folds_and_seeds(root, run)
    if not pairs:
        known = ", ".join(layout.runs_there(root)) or "none"
        raise NotPreparedError(
            f"run {run!r} has no nets under {root} (runs there: {known}); type: affuse train --run {run}"
        )
    if {fold for fold, _ in pairs} == {0}:
        return {layout.seed_folder(s): layout.part_uri(root, run, 0, s) for _, s in pairs}
    raise NotPreparedError(
        f"run {run!r} has folds and no refit on all of its rows; "
        f"type: affuse train --config {shlex.quote(layout.run_uri(root, run, layout.CONFIG))} --refit"
    )


def nets_of_member(bundle_uri: str, member: Mapping[str, Any]) -> dict[str, str]:
    """The copies of a member's networks inside a bundle: `seed=S` -> folder.

    A bundle that took the place of another one may have nets of that one beside its own.
    """
    base = layout.nets_uri(bundle_uri, member["run"])
    return {seed: storage.join(base, seed) for seed in member["seeds"]}


def copy_run(root: str, bundle: str, run: str) -> dict[str, Any]:
    """Copy the nets that predict new clips for a run into a bundle: one a seed.

    Returns:
        The run, its seeds, the card of its nets (how they are built and fed), and the hash of each one's
        weights.
    """
    sources = nets_of_run(root, run)
    hashes = {}
    for seed, source in sources.items():
        for file in NET_FILES:
            content = storage.read_bytes(storage.join(source, file))
            target = layout.nets_uri(layout.bundle_uri(root, bundle), run, seed, file)
            storage.publish_bytes(content, target)
            if file == layout.WEIGHTS:
                hashes[seed] = hash_of(content)
    card = storage.read_json(storage.join(next(iter(sources.values())), layout.CARD))
    return {"run": run, "seeds": sorted(sources), "card": card, "sha256": hashes}
