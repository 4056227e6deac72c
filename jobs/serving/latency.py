"""How long a visitor waits: `affuse benchmark serve` asks a server the same over and over, through HTTP.

One request at a time, so that nobody waits in the queue; what is sent changes from request to request,
so that a slower minute of the machine falls on all alike.
"""

import datetime
import os
import statistics
import time
import wave
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cluster import storage
from cluster.errors import ConfigError
from cluster.scratch import scratch_folder
from cluster.session import processor, usable_cpus
from cluster.settings import NameOrPlace, Place
from jobs.catalog.outputs import check_outputs, publish_outputs, record_of
from jobs.serving import TOKEN
from jobs.serving.asking import Asked, Client, form, started, words

TEXT = "I never expected that letter, what a lovely surprise. Thank you for coming all this way."

SAMPLE_BYTES = 2


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Time from asking a server to its answer: median and 95th percentile of a voice, a film and a text."""

    bundle: NameOrPlace = "face_expression"
    """Bundle for the server that is started: a name under --root, a folder, or face_expression."""

    root: Place = ""
    """Folder or URI of a dataset; a bundle's plain name is looked up under it."""

    url: str | None = None
    """Address of a server that runs already, its token in AFFUSE_SERVE_TOKEN; by default one is started."""

    clip_s: float = 5.0
    """Length of the film and of the voice [s]."""

    rounds: int = 20
    """Number of requests of each kind that are counted; the first of all is shown by itself."""

    store: Place | None = None
    """Store of the weights; by default ~/.cache/affuse/store, or ROOT/../store where ROOT is remote."""

    json: Place | None = None
    """File for the figures as JSON."""

    overwrite: bool = False
    """Replace a file that no earlier run made."""

    def __post_init__(self) -> None:
        if self.rounds < 1 or not 1 <= self.clip_s <= 120:
            raise ConfigError("--rounds: expected 1 or more; --clip-s: expected 1 to 120")


def measure(config: ServeConfig) -> None:
    """Start a server or take the one that runs, ask it, print the table, and write the JSON."""
    out = None if config.json is None else storage.absolute(config.json)
    if out is not None:
        check_outputs([out], record_of(out), overwrite=config.overwrite)
    with asked_server(config) as (client, start_s), scratch_folder() as folder:
        facts = client.ask("GET", "/facts")
        sent = made_clips(Path(folder), config.clip_s, facts["modalities"], facts["transcribes"])
        begun, load = datetime.datetime.now(datetime.UTC), os.getloadavg()[0]
        kinds = measured(client, sent, config.rounds)
        figures = {
            "bundle": facts["bundle"],
            "server": config.url or "started here",
            "clip_s": config.clip_s,
            "start_s": start_s,
            "kinds": kinds,
            "machine": f"{processor()}, {usable_cpus()} CPUs",
            "load": [load, os.getloadavg()[0]],
            "begun": begun.isoformat(timespec="seconds"),
        }
    print(latency_table(figures))
    if out is not None:
        publish_outputs(config, {out: storage.json_bytes(figures)}, record_of(out))
        print(f"wrote {out}")


@contextmanager
def asked_server(config: ServeConfig) -> Iterator[tuple[Client, float | None]]:
    """The server, and how long it took to start where it was started here [s]."""
    if config.url is not None:
        yield Client(config.url, os.environ.get(TOKEN)), None
        return
    flags = {
        "bundle": config.bundle,
        "root": config.root,
        "store": config.store,
        "per-minute": 10**6,
        "max-s": config.clip_s + 1,
    }
    given = (word for name, value in flags.items() if value for word in (f"--{name}", str(value)))
    with started([*given]) as server:
        yield server


def made_clips(
    folder: Path, length_s: float, modalities: Sequence[str], transcribes: bool
) -> dict[str, Asked]:
    """What is sent: a speaker of the synthetic corpus as a film, their voice, and words.

    Args:
        folder: where the film is made.
        length_s: of film and voice [s].
        modalities: that the bundle reads; what it cannot answer is left out.
        transcribes: whether it recognises speech.

    Raises:
        MissingExtraError: there is no voice here.
    """
    from jobs.datasets.corpus import script
    from jobs.datasets.corpus.film import monologue
    from jobs.datasets.corpus.voice import Voice

    lines = script.write(0, 200)
    voice, film, heard = Voice(), folder / "film.mp4", folder / "voice.wav"
    own = [line for line in lines if line.speaker == lines[0].speaker][: 1 + int(length_s / 2)]
    sound = monologue(own, length_s=length_s, voice=voice, seed=0, to=str(film))
    with wave.open(str(heard), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(SAMPLE_BYTES)
        out.setframerate(voice.rate_hz)
        out.writeframes(sound.tobytes())
    sent = {
        "voice": form(heard) if transcribes or "audio" in modalities else None,
        "film": form(film),
        "text": words(TEXT) if "text" in modalities else None,
    }
    return {name: asked for name, asked in sent.items() if asked is not None}


def measured(client: Client, sent: Mapping[str, Asked], rounds: int) -> dict[str, dict[str, Any]]:
    """Figures of each kind of request.

    Args:
        client: asks.
        sent: what is sent, by kind.
        rounds: how often each is sent, after once that is not counted in.
    """
    waited: dict[str, Waited] = {}
    for name, asked in sent.items():
        whole_s, _ = timed(client, asked)
        waited[name] = Waited(first_s=whole_s)
    for _ in range(rounds):
        for name, asked in sent.items():
            whole_s, worked_s = timed(client, asked)
            waited[name].whole_s.append(whole_s)
            waited[name].worked_s.append(worked_s)
    return {name: each.figures() for name, each in waited.items()}


def timed(client: Client, asked: Asked) -> tuple[float, float]:
    """How long a request took, and how long of it the server worked [s]."""
    begun = time.perf_counter()
    said = client.ask("POST", "/predict", asked)
    return time.perf_counter() - begun, float(said["seconds"])


@dataclass(frozen=True, kw_only=True)
class Waited:
    """What one kind of request took [s]."""

    first_s: float
    """The first one, which finds the models cold."""

    whole_s: list[float] = field(default_factory=list)
    """From sending to the answer, of each that followed."""

    worked_s: list[float] = field(default_factory=list)
    """What the server says that it worked, of each."""

    def figures(self) -> dict[str, Any]:
        """Median and 95th percentile, and all that they are of."""
        return {
            "requests": len(self.whole_s),
            "p50_s": statistics.median(self.whole_s),
            "p95_s": float(np.percentile(self.whole_s, 95)),
            "worked_p50_s": statistics.median(self.worked_s),
            "first_s": self.first_s,
            "whole_s": self.whole_s,
        }


def latency_table(figures: Mapping[str, Any]) -> str:
    """The figures as a printed table."""
    rows = [
        (
            name,
            f"p50 {kind['p50_s']:.2f} s, p95 {kind['p95_s']:.2f} s of {kind['requests']}; "
            f"the first {kind['first_s']:.2f} s",
        )
        for name, kind in figures["kinds"].items()
    ]
    if figures["start_s"] is not None:
        rows.append(("models loaded after", f"{figures['start_s']:.1f} s"))
    load = " and ".join(f"{each:.1f}" for each in figures["load"])
    rows.append(("machine", f"{figures['machine']}; load before and after {load}"))
    rows.append(("begun", figures["begun"]))
    width = max(len(name) for name, _ in rows)
    head = f"{figures['bundle']}, {figures['server']}: a clip of {figures['clip_s']:g} s, one at a time"
    return "\n".join([head, *(f"  {name:<{width}}  {value}" for name, value in rows)])
