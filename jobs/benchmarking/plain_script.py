"""The baseline of the benchmark: a plain script that encodes one clip after the other.

For every encoder on its own it decodes each clip whole with PyAV and runs the model on that clip alone:
Whisper as its feature extractor pads it (30 s), the other transformers as their documentation shows. Same
weights, same clips, one process with as many threads as the plan has cores; starting up and loading are not
counted. Encoders without such a documented use run by their own wrapper, a clip at a time.
"""

import io
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np

from cluster import storage
from cluster.errors import MediaError
from cluster.resources import Plan
from encoders import registry
from encoders.media import ClipSource, Source
from encoders.spec import Clip, Descriptor, FramePolicy, Frames, Needs, Transcript
from encoders.store import local_paths
from jobs.catalog.manifest import read_unit
from jobs.stream.batcher import Batcher
from jobs.stream.decode import source_of
from jobs.stream.job import StreamJob, UnitTask, Work
from jobs.stream.result_rows import has_modality

MAX_CLIPS = 60
LONGEST_S = 60.0
"""All frames of a clip are in memory at once; longer clips are left out."""


@dataclass(frozen=True, kw_only=True)
class Plain:
    """Times of the script over its clips."""

    clips: int
    failed: int
    """Clips that could not be read or encoded; they count as done."""

    threads: int
    device: str
    decode_s: float
    """Every clip once for every encoder that reads sound or pictures."""

    encode_s: Mapping[str, float]
    """By encoder, and the transcriber, as the job names them."""

    @property
    def rate(self) -> float:
        """Clips per second with all encoders."""
        return self.clips / (self.decode_s + sum(self.encode_s.values()))

    def ratios(
        self, whole: float, decode: float, models: Mapping[str, float]
    ) -> dict[str, float | None]:
        """How many times faster the job is: as a whole and stage by stage, by rates in clips/s."""
        stages = {"decode": (decode, self.decode_s)}
        stages |= {name: (rate, self.encode_s[name]) for name, rate in models.items()}
        ratios = {
            name: rate * seconds / self.clips if seconds else None
            for name, (rate, seconds) in stages.items()
        }
        return {"whole": whole / self.rate, **ratios}


def measure_plain(job: StreamJob, tasks: Sequence[UnitTask], plan: Plan) -> Plain | None:
    """Run the script in a process of its own on some of the clips; None where all are too long."""
    rows = [row for task in tasks for row in read_unit(task.ref).to_pylist()]
    sources = some_of([source_of(row) for row in rows])
    if not sources:
        return None
    cores = plan.decode.workers + round(plan.encode.workers * plan.encode.cpus_each)
    threads = min(cores, os.cpu_count() or 1)
    device = "cuda" if plan.on_gpu else "cpu"
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(script, job.work, sources, threads, device).result()


def some_of(sources: Sequence[ClipSource]) -> list[ClipSource]:
    """At most `MAX_CLIPS`, whose lengths are spread as those of all."""
    usable = [source for source in sources if (source.duration_s or 0.0) <= LONGEST_S]
    usable.sort(key=lambda source: (source.duration_s or 0.0, source.clip_id))
    count = min(MAX_CLIPS, len(usable))
    middles = ((np.arange(count) + 0.5) * len(usable) / max(1, count)).astype(int)
    return [usable[index] for index in middles]


def script(work: Work, sources: Sequence[ClipSource], threads: int, device: str) -> Plain:
    """The script itself."""
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(threads)
    device = device if torch.cuda.is_available() else "cpu"
    decode_s = 0.0
    encode_s: dict[str, float] = {}
    failed: set[int] = set()
    if work.transcriber is not None:
        weights = local_paths(work.transcriber.weights, work.store)
        ear = registry.load_transcriber(work.transcriber, weights, device=device, threads=threads)
        mute = [source for source in sources if source.text is None]
        run = _run(work.transcriber, lambda clip: ear.transcribe([clip])[0], mute)
        sources = [_told(source, run.results.get(source.clip_id)) for source in sources]
        decode_s, encode_s[work.transcriber.name] = run.decode_s, run.encode_s
        failed |= run.failed
    for descriptor in work.descriptors:
        weights = local_paths(descriptor.weights, work.store)
        run = _run(descriptor, loaded(descriptor, weights, device, threads), sources)
        decode_s, encode_s[descriptor.folder] = decode_s + run.decode_s, run.encode_s
        failed |= run.failed
    return Plain(
        clips=len(sources),
        failed=len(failed),
        threads=threads,
        device=device,
        decode_s=decode_s,
        encode_s=encode_s,
    )


@dataclass
class _Run:
    """One loop over the clips with one model."""

    decode_s: float = 0.0
    encode_s: float = 0.0
    results: dict[int, Any] = field(default_factory=dict)
    failed: set[int] = field(default_factory=set)


def _run(
    descriptor: Descriptor, call: Callable[[Clip], Any], sources: Sequence[ClipSource]
) -> _Run:
    # A batch of one, and an error stays with its clip.
    one = Batcher(lambda clips: [call(clip) for clip in clips], size=lambda _: 0.0, max_clips=1)
    run = _Run()
    for source in sources:
        begun = time.perf_counter()
        try:
            clip = decoded(source, descriptor.needs)
        except (av.error.FFmpegError, OSError):
            run.failed.add(source.clip_id)
            continue
        run.decode_s += time.perf_counter() - begun
        if not has_modality(clip, descriptor):
            continue
        if not run.results:
            one([clip])  # what is set up by the first call is not counted
        begun = time.perf_counter()
        (run.results[source.clip_id],) = one([clip])
        run.encode_s += time.perf_counter() - begun
    errors = {clip_id for clip_id, item in run.results.items() if isinstance(item, MediaError)}
    run.failed |= errors
    return run


def _told(source: ClipSource, heard: Any) -> ClipSource:
    if not isinstance(heard, Transcript):
        return source
    return replace(source, text=heard.text, words=heard.words)


def decoded(source: ClipSource, needs: Needs) -> Clip:
    """One clip with what one encoder needs of it, read whole.

    Raises:
        av.error.FFmpegError, OSError: it cannot be read.
    """
    waveforms, frames, times = {}, {}, [0.0]
    if source.audio is not None:
        for rate_hz in needs.rates_hz:
            waveforms[rate_hz] = _sound(source, source.audio, rate_hz)
    if source.video is not None:
        for policy in needs.frames:
            pictures, times = _pictures(source, source.video, policy.size)
            if times:
                kept = picked(times, policy)
                at = np.array([times[index] for index in kept])
                frames[policy] = Frames(np.stack([pictures[index] for index in kept]), at)
    return Clip(
        clip_id=source.clip_id,
        duration_s=source.duration_s or max(times, default=0.0),
        waveforms={rate: samples for rate, samples in waveforms.items() if len(samples)},
        frames=frames,
        text=source.text,
        words=source.words,
    )


def picked(times_s: Sequence[float], policy: FramePolicy) -> list[int]:
    """Which of all frames an encoder sees: at each wanted time the one on screen then."""
    gap = times_s[-1] / (len(times_s) - 1) if len(times_s) > 1 else 0.04
    length = times_s[-1] + gap
    if policy.kind == "even":
        wanted = (np.arange(policy.count) + 0.5) * length / policy.count
    else:
        count = max(1, min(policy.max_frames, int(np.ceil(length * policy.rate_hz - 1e-6))))
        if policy.kind == "windows":
            count = -(-count // policy.count) * policy.count
        wanted = np.arange(count) / policy.rate_hz
    shown = np.searchsorted(times_s, wanted + 1e-6, side="right") - 1
    return [int(index) for index in shown.clip(0, len(times_s) - 1)]


def _sound(source: ClipSource, media: Source, rate_hz: int) -> np.ndarray:
    with _opened(media) as container:
        if not container.streams.audio:
            return np.zeros(0, np.float32)
        resampler = av.AudioResampler(format="flt", layout="mono", rate=rate_hz)
        pieces = [
            piece.to_ndarray()[0]
            for frame in _between(container, container.streams.audio[0], source)
            for piece in resampler.resample(frame)
        ]
        if pieces:
            pieces += [piece.to_ndarray()[0] for piece in resampler.resample(None)]
        return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)


def _pictures(source: ClipSource, media: Source, size: int) -> tuple[list[np.ndarray], list[float]]:
    """Every frame, its shorter side at most `size`, and their times from the start of the clip."""
    with _opened(media) as container:
        if not container.streams.video:
            return [], []
        pictures, times = [], []
        for frame in _between(container, container.streams.video[0], source):
            scale = min(1.0, size / min(frame.width, frame.height))
            small = {"width": round(frame.width * scale), "height": round(frame.height * scale)}
            pictures.append(frame.to_ndarray(format="rgb24", **small))
            times.append(frame.time - (source.start_s or 0.0))
        return pictures, times


def _opened(media: Source) -> Any:
    if media.offset is None and storage.is_local(media.uri):
        return av.open(media.uri.removeprefix("file://"))
    fs, path = storage.filesystem(media.uri)
    end = None if media.offset is None else media.offset + (media.size or 0)
    return av.open(io.BytesIO(fs.cat_file(path, start=media.offset, end=end)))


def _between(container: Any, stream: Any, source: ClipSource) -> Iterator[Any]:
    """Frames of the segment, or of the whole file."""
    start, end = source.start_s or 0.0, source.end_s
    if start:
        container.seek(int(start * av.time_base))
    for frame in container.decode(stream):
        if frame.time is None or frame.time < start:
            continue
        if end is not None and frame.time >= end:
            return
        yield frame


def loaded(
    descriptor: Descriptor, weights: Mapping[str, Path], device: str, threads: int
) -> Callable[[Clip], Any]:
    """The function that the script calls on each clip."""
    known = {
        "encoders.audio._speech:SpeechTransformer": _speech,
        "encoders.audio._whisper:WhisperStates": _whisper,
        "encoders.text._transformer:TextTransformer": _text,
    }
    load = known.get(descriptor.spec.implementation)
    if load is not None and descriptor.options.get("context", "none") == "none":
        return load(weights["model"], device)
    encoder = registry.load(descriptor, weights, device=device, threads=threads)
    return lambda clip: encoder.encode([clip])[0]


def _whisper(path: Path, device: str) -> Callable[[Clip], Any]:
    import torch
    from transformers import WhisperFeatureExtractor

    from encoders.audio._whisper import load_whisper

    model = load_whisper(path).eval().to(device)
    extractor = WhisperFeatureExtractor(feature_size=model.config.num_mel_bins)
    window = extractor.n_samples

    def call(clip: Clip) -> list[Any]:
        samples = clip.waveforms[16000]
        states = []
        for start in range(0, len(samples), window):
            part = samples[start : start + window]
            inputs = extractor(part, sampling_rate=16000, return_tensors="pt")
            with torch.inference_mode():
                output = model.encoder(inputs.input_features.to(device), output_hidden_states=True)
            states.append(output.last_hidden_state.cpu().numpy())
        return states

    return call


def _speech(path: Path, device: str) -> Callable[[Clip], Any]:
    import torch
    from transformers import AutoModel, Wav2Vec2FeatureExtractor

    model = AutoModel.from_pretrained(path, local_files_only=True).eval().to(device)
    extractor = Wav2Vec2FeatureExtractor()
    if (path / "preprocessor_config.json").exists():
        extractor = Wav2Vec2FeatureExtractor.from_pretrained(path, local_files_only=True)

    def call(clip: Clip) -> Any:
        inputs = extractor(clip.waveforms[16000], sampling_rate=16000, return_tensors="pt")
        with torch.inference_mode():
            output = model(inputs.input_values.to(device), output_hidden_states=True)
        return output.last_hidden_state.cpu().numpy()

    return call


def _text(path: Path, device: str) -> Callable[[Clip], Any]:
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = path.parent if path.is_file() else path
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModel.from_pretrained(folder, local_files_only=True)
    longest = min(tokenizer.model_max_length, model.config.max_position_embeddings - 2)
    model = (model.get_encoder() if model.config.is_encoder_decoder else model).eval().to(device)

    def call(clip: Clip) -> Any:
        inputs = tokenizer(clip.text, truncation=True, max_length=longest, return_tensors="pt")
        with torch.inference_mode():
            output = model(**inputs.to(device), output_hidden_states=True)
        return output.last_hidden_state.cpu().numpy()

    return call
