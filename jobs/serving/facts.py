"""What the page has to know of a bundle, without any model loaded."""

from fusion.tasks import Task
from jobs.scoring.opening import open_bundle
from jobs.scoring.scorer import untrained_task
from jobs.serving.intake import MOST_LETTERS
from jobs.serving.schema import ServedFacts


def facts_of(bundle: str, root: str, max_mb: float, max_s: float, keep_s: float) -> ServedFacts:
    """The facts of a bundle, and the limits.

    Raises:
        NotPreparedError: there is no such bundle.
        ConfigError: it cannot score raw clips.
    """
    opened = open_bundle(bundle, root)
    opened.refuse_raw()
    name, task = untrained_task()
    if opened.facts:
        name, task = str(opened.facts["task"]), Task.from_json(opened.facts)
    return ServedFacts(
        bundle=opened.name,
        task=name,
        classes=list(task.classes),
        modalities=sorted({str(item.spec.modality) for item in opened.encoders}),
        transcribes=opened.transcriber is not None,
        max_mb=max_mb,
        max_s=max_s,
        max_letters=MOST_LETTERS,
        keep_s=keep_s,
    )
