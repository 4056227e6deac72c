"""Ask a large model about clips: its label probabilities become the predictions of a run, as one more member.

The server is any that speaks OpenAI's chat completions (vLLM, llama.cpp, a hosted one). It is shown a clip's
words, and on request its sound and pictures, and chooses among lettered labels; the probabilities of the
letters, averaged over rotated orders of the labels, are the scores (`jobs.asking.question`). Only clips that
runs are judged on are sent: those of the folds, or of the validation split; never a row of the test split.

Every answer is kept, so that the same command goes on after a stop and asks nothing twice. The token of a
server is read from the environment, AFFUSE_ASK_TOKEN.

Reads:  <root>/manifest/, <root>/folds/, <root>/transcripts/ (with --transcriber), media (with --show)
Writes: <root>/runs/<run>/   (cluster.tables.PREDICTIONS, roles oof or valid), for `affuse ensemble`
        <root>/answers/      what was answered, by what was asked

Laptop:   affuse ask --root data/meld --server http://127.0.0.1:8080/v1 --model qwen --context 5
One GPU:  affuse ask --root data/mosei --server http://127.0.0.1:8000/v1 --model omni --show text audio frames
Hosted:   affuse ask --root data/meld --server https://host.example/v1 --model big --limits.per-minute 60
"""

import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from cluster import settings, storage
from cluster.console import readable
from cluster.errors import ConfigError, TooManyFailuresError
from fusion.tasks import Task
from jobs.asking.all_clips import answers_of
from jobs.asking.config import AskConfig
from jobs.asking.contents import HAS, has_shown, shown_rows
from jobs.asking.nothing_shown import nothing_to_show
from jobs.asking.question import questions_of, scores_of
from jobs.catalog import layout
from jobs.catalog.features import resolve_transcripts
from jobs.catalog.label_names import check_run, note_tasks
from jobs.catalog.manifest import read_dataset, read_folds
from jobs.catalog.outputs import publish_config
from jobs.catalog.run_names import check_owner, free, holds_results, owner, take
from jobs.catalog.tasks import pick_task
from jobs.training.given_scores import judged_clips, publish_predictions, publish_summary

ELSEWHERE = ("decoding", "limits", "max_failed_share", "root", "run", "server")
"""Fields that do not change the answers."""


Config = AskConfig


def main(config: Config) -> None:
    """Ask about every held-out clip, then write the answers as a run."""
    config = replace(config, root=storage.absolute(config.root))
    name, task = pick_task(read_dataset(config.root), config.task)
    asked = questions_of(name, task, config.question)
    base = layout.run_uri(config.root, config.run)
    own = {"identity": identity(config)}
    check_name(config, base, own)
    if storage.exists(storage.join(base, layout.SUMMARY)):
        print(f"nothing to do: {base} is complete")
        return
    judged = judged_clips(config.root, name, task, config.folds)
    if not len(judged.rows):
        raise ConfigError(f"no held-out clip has a label of {name!r}; type --folds, or --task")
    say_shown(config, judged.clip_id)
    take_name(config, base, own, {name: task})
    said = answers_of(config, asked, judged.clip_id)
    if not said:
        raise TooManyFailuresError(
            f"none of {len(judged.rows)} clips is answered; nothing is fused"
        )
    scores = {clip: scores_of(answers, task) for clip, answers in said.items()}
    check_owner(base, own)
    publish_predictions(config.root, config.run, name, task, judged, scores)
    facts = {"asked": config.model, "how": config.how, "orders": config.orders}
    publish_summary(config.root, config.run, name, task, facts)
    print(
        f"wrote {base}; type: affuse ensemble --root {shlex.quote(config.root)} --runs OTHERS {config.run}"
    )


def say_shown(config: Config, clip_id: np.ndarray) -> None:
    """Print how many clips go where, and how many have nothing to show.

    Raises:
        ConfigError: none of them has anything.
    """
    known = shown_rows(config.root, config.transcriber)
    count = sum(has_shown(known[clip], config.show) for clip in clip_id.tolist())
    if not count:
        raise ConfigError(nothing_to_show(config, known.values(), len(clip_id)))
    what = " and ".join(config.show)
    verb = "goes" if len(config.show) == 1 else "go"
    print(readable(f"{count} clips: their {what} {verb} to {config.server} ({config.model})"))
    if count < len(clip_id):
        without = " or ".join(HAS[each] for each in config.show)
        left = len(clip_id) - count
        has, they = ("has", "it is") if left == 1 else ("have", "they are")
        print(f"{left} of {len(clip_id)} clips {has} no {without}: {they} not asked about")


def check_name(config: Config, base: str, own: Mapping[str, str]) -> None:
    """Refuse the name of a run that is another's.

    Raises:
        ConfigError: it is that of another run, of other labels, or of another way to ask; the message says
            what differs.
    """
    there = owner(base)
    if not holds_results(base):
        return
    check_run(config.root, config.run)
    if there != own:
        raise ConfigError(
            f"run {config.run!r} is there already, and was made otherwise ({differs(config, base)}); type "
            "another --run"
        )


def differs(config: Config, base: str) -> str:
    """How a run that is there was made otherwise than this one, in words."""
    if not storage.exists(storage.join(base, layout.ASKED)):
        return "it is no run of affuse ask"
    before = storage.read_json(storage.join(base, layout.CONFIG))
    changed = [
        f"{key} {_plain(before.get(key))}, now {_plain(value)}"
        for key, value in settings.resolved(config).items()
        if key not in ELSEWHERE and before.get(key) != value
    ]
    return "; ".join(changed) or "the clips, their words or their folds have changed since"


def _plain(value: Any) -> str:
    if value is None:
        return "none"
    return " ".join(value) if isinstance(value, list) else str(value)


def take_name(config: Config, base: str, own: Mapping[str, str], tasks: Mapping[str, Task]) -> None:
    """Take the name of the run; what a start without results left behind goes."""
    if owner(base) not in (None, own):
        free(base)
    take(base, own)
    note_tasks(config.root, config.run, tasks)
    publish_config(config, base)
    storage.publish_json({"model": config.model}, storage.join(base, layout.ASKED))


def identity(config: Config) -> str:
    """Eight hex digits over all that shapes the answers, and over what they are answers to."""
    meaning: dict[str, Any] = {
        key: value for key, value in settings.to_mapping(config).items() if key not in ELSEWHERE
    }
    meaning["manifest"] = read_dataset(config.root).manifest_hash
    if config.transcriber is not None:  # by its fingerprint: the words that were shown
        meaning["transcriber"] = resolve_transcripts(config.root, config.transcriber)
    if config.folds is not None:
        meaning["cut"] = sorted(read_folds(config.root, config.folds).items())
    return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()[:8]
