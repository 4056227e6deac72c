"""The card of a bundle: what it is made of, how it was judged, what it may and may not be used for."""

from collections.abc import Mapping
from typing import Any

from encoders import ENCODERS, TRANSCRIBERS
from encoders.registry import find
from fusion.metrics import FIGURES
from fusion.statistics import Interval

LIMITS = """\
## Limits

- It answers which label annotators would have given, from what can be seen, heard and read. It does not know
  what anybody feels; people show the same feeling differently, and different feelings alike.
- The figures above hold for people, languages, cameras and microphones like those of the data. For others
  measure anew (`affuse score`, `affuse compare`), by group where age, gender or origin are known.
- {measured} on held-out people of the same data, and on nothing else. The intervals are
  over groups (mostly people); with few of them they are wide, and should be read so.
- A modality that is missing is left out, not guessed. `affuse explain` says which one an answer rests on.

## Intended uses

Research on affect and its measurement; describing collections of clips; accessibility and art with the
consent of those who are shown; medical and safety uses only after an evaluation of their own.

## Refused uses

- Inferring emotions of people at work or in education: prohibited in the European Union other than for
  medical or safety reasons (Regulation (EU) 2024/1689, Article 5(1)(f)).
- Deciding about people by it: hiring, marks, credit, policing, migration, insurance. Elsewhere emotion
  recognition from biometric data is a high-risk use there (Annex III), and people have to be told (Article
  50(3)).
- Covert use, and inferring health, beliefs, origin or orientation.

No face and no voice is in these files: they hold the numbers of networks.
"""


MEASURED = {"regression": "Errors of the values were measured"}
"""Kind of task -> what is known of its answers; of the others it is `CALIBRATED`."""

CALIBRATED = "Probabilities are calibrated"


def card_of(
    facts: Mapping[str, Any],
    results: Mapping[str, Any] | None,
    dataset: Mapping[str, Any] | None = None,
) -> str:
    """The card as Markdown.

    Args:
        facts: the bundle's `bundle.json`.
        results: its `results.json`; None: not judged.
        dataset: the `dataset.json` of the data; None: not at hand.
    """
    parts = [_head(facts), _data(facts, results, dataset), _figures(facts, results), _models(facts)]
    limits = LIMITS.format(measured=MEASURED.get(str(facts["kind"]), CALIBRATED))
    return "\n".join([*parts, limits])


def yaml_head(facts: Mapping[str, Any], results: Mapping[str, Any] | None) -> str:
    """The head that model hubs read, between two lines of three dashes."""
    import yaml

    shipped = _shipped(results)
    head: dict[str, Any] = {
        "library_name": "affuse",
        "license": "other",
        "license_name": "see-the-licences-of-data-and-encoders",
        "tags": ["emotion-recognition", "multimodal", str(facts["kind"]), *_inputs(facts)],
        "datasets": [str(facts.get("dataset", "unknown"))],
    }
    if shipped is not None:
        metrics = [
            {"type": name, "value": round(figure["value"], 4), "name": f"{name} (held-out)"}
            for name, figure in shipped["figures"].items()
        ]
        of = {"type": str(facts["dataset"]), "name": str(facts["dataset"])}
        task = {"type": str(facts["kind"]), "name": str(facts["task"])}
        result = {"task": task, "dataset": of, "metrics": metrics}
        head["model-index"] = [{"name": str(facts["name"]), "results": [result]}]
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---\n"


def _head(facts: Mapping[str, Any]) -> str:
    kind, classes = facts["kind"], facts.get("classes") or ()
    what = f"{kind}: {', '.join(map(plain, classes))}" if classes else str(kind)
    if facts.get("range"):
        what += f", {facts['range'][0]:g} to {facts['range'][1]:g}"
    read, ships = ", ".join(map(plain, _inputs(facts))), plain(facts.get("ships", "a fusion"))
    return (
        f"# {plain(facts['name'])}\n\nPredicts **{plain(facts['task'])}** ({what}) of a clip from what is "
        f"there of {read}. What ships: {ships}.\n"
    )


def _data(
    facts: Mapping[str, Any],
    results: Mapping[str, Any] | None,
    dataset: Mapping[str, Any] | None,
) -> str:
    licence = (dataset or {}).get("licence") or "not stated here"
    name, manifest = (plain(facts.get(key, "unknown")) for key in ("dataset", "manifest"))
    lines = [
        "## Data and protocol\n",
        f"- data: {name}, manifest {manifest}; licence: {plain(licence)}",
    ]
    if results is not None:
        lines.append(
            f"- judged on {results['num_rows']} clips of {results['num_groups']} groups that no net trained "
            "on, cross-fitted: rule and calibration of every fold were fitted on the others; 95 % intervals "
            "over groups"
        )
        lines.append(f"- {plain(results['verdict'])}")
    else:
        lines.append("- it has not been judged on held-out rows")
    if facts.get("manifest") and any(
        member["card"].get("normalise", "none") != "none" for member in facts["members"]
    ):
        lines.append(
            "- nets read features normalised by speaker: it needs several clips of everybody"
        )
    return "\n".join([*lines, ""])


def _figures(facts: Mapping[str, Any], results: Mapping[str, Any] | None) -> str:
    if results is None:
        return ""
    names = FIGURES[facts["kind"]]
    lines = [
        f"| | n | {' | '.join(names)} |",
        "| --- | --- |" + " --- |" * len(names),
    ]
    for row in results["rows"]:
        cells = [_interval(row["figures"].get(name)) for name in names]
        lines.append(f"| {plain(row['name'])} ({row['role']}) | {row['n']} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _models(facts: Mapping[str, Any]) -> str:
    lines = ["## Encoders and members\n"]
    sources = {
        source["features"]: source
        for member in facts["members"]
        for source in member["card"]["inputs"].values()
    }
    for folder, source in sorted(sources.items()):
        lines.append(f"- {_encoder(folder, source)}")
    weights = facts.get("member_weights", {})
    for member in facts["members"]:
        card, share = member["card"], weights.get(member["run"])
        read = ", ".join(sorted(plain(each["name"]) for each in card["inputs"].values()))
        counts = f", weight {share:.2f}" if share is not None else ""
        lines.append(
            f"- member {plain(member['run'])}: {card['net']} over {read}, "
            f"{len(member['seeds'])} seed(s){counts}"
        )
    return "\n".join([*lines, ""])


def _encoder(folder: str, source: Mapping[str, Any]) -> str:
    if source["name"] not in {**ENCODERS, **TRANSCRIBERS}:
        name = plain(source["name"])
        return f"{name} (imported features {plain(folder)}; their licence is their maker's)"
    spec = find(source["name"])
    weights = "; ".join(f"{each.uri} ({each.licence})" for each in spec.weights)
    return f"{source['name']} ({spec.modality}, {spec.licence}): {spec.summary}" + (
        f" Weights: {weights}" if weights else ""
    )


def _inputs(facts: Mapping[str, Any]) -> list[str]:
    """Modalities, or the names of inputs that were imported."""
    found = []
    for member in facts["members"]:
        for source in member["card"]["inputs"].values():
            known = source["name"] in ENCODERS
            found.append(str(find(source["name"]).modality) if known else str(source["name"]))
    return sorted(set(found))


def _shipped(results: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    rows = () if results is None else results["rows"]
    last = [row for row in rows if row["role"] in ("ensemble", "shipped")]
    return last[-1] if last else None


def _interval(figure: Mapping[str, Any] | None) -> str:
    if figure is None or figure["value"] is None:
        return "-"
    return str(Interval.from_facts(figure))


def plain(text: object) -> str:
    """Text that people gave, on one line and without marks of Markdown or HTML."""
    line = " ".join(str(text).split())
    for mark in "\\`*_[]<>|#":
        line = line.replace(
            mark, "\\" + mark if mark not in "<>" else {"<": "&lt;", ">": "&gt;"}[mark]
        )
    return line
