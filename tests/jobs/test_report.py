"""The report: one file with everything in it, every figure beside its baselines, nothing executed."""

import base64
import csv
import json
import re
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pytest

from cluster import storage, tables
from cluster.errors import ConfigError, NotPreparedError
from fusion.late.presence import HeldRows, left_out
from jobs import ensemble, evaluate, report
from jobs.__main__ import run as affuse
from jobs.catalog import bundles, layout
from jobs.catalog.predictions import write_predictions
from jobs.evaluation.promises import Promised, met
from jobs.reporting import plots, sections_moments
from jobs.reporting.evidence import gather
from jobs.reporting.grid import Grid, latex
from jobs.reporting.run_history import searches
from jobs.reporting.sections_moments import films_of

CLASSES = ("angry", "happy", "<b>neutral</b>")
EVIL = '<script>alert("x")</script>'
PEOPLE, EACH, FOLDS = 12, 10, 3
COUNT = PEOPLE * EACH


def prepare(root, kind="classification", people=PEOPLE):
    """A dataset of clips with hostile names, and the targets of its task."""
    generator = np.random.default_rng(0)
    names = [EVIL if row == 0 else f"clip_{row}" for row in range(COUNT)]
    groups = [f"p{row % people}" for row in range(COUNT)]
    if kind == "regression":
        target = generator.normal(size=(COUNT, 1))
        column = pa.array(target[:, 0])
    elif kind == "multilabel":
        target = generator.integers(0, 2, (COUNT, 3)).astype(float)
        column = pa.array(target.tolist())
    else:
        target = generator.integers(0, 3, (COUNT, 1)).astype(float)
        column = pa.array([CLASSES[int(label)] for label in target[:, 0]])
    given = {"clip_id": np.arange(COUNT), "name": names, "unit": groups, "group": groups}
    rows = {
        field.name: pa.nulls(COUNT, field.type)
        for field in tables.MANIFEST.schema
        if field.name not in given
    }
    table = tables.MANIFEST.conform(pa.table({**given, **rows, "mood": column}))
    storage.publish_table(table, storage.join(root, "manifest", "h", "part-0.parquet"))
    task = {"kind": kind, "classes": [] if kind == "regression" else list(CLASSES)}
    facts = {"name": "tiny & small", "manifest": "h", "tasks": {"mood": task}}
    storage.publish_json(facts, storage.join(root, "dataset.json"))
    return target


def add_run(root, name, target, scores, there=None):
    """Predictions of three folds: each row held out once, the others trained on or validated.

    `there` marks the rows that the run says anything of.
    """
    fold_of = (np.arange(COUNT) % PEOPLE) % FOLDS
    for fold in range(FOLDS):
        role = np.where(
            fold_of == fold, "oof", np.where(fold_of == (fold + 1) % 3, "valid", "train")
        )
        shown = scores + 2 * (role == "train")[:, None] * _towards(target, scores.shape[1])
        table = {
            "clip_id": np.arange(COUNT), "run": [name] * COUNT,
            "split": pa.nulls(COUNT, pa.string()), "fold": [fold] * COUNT, "seed": [0] * COUNT,
            "task": ["mood"] * COUNT, "target": target.tolist(), "role": role,
            "scores": shown.tolist(),
        }  # fmt: skip
        rows = pa.table(table)
        write_predictions(
            root, name, fold, 0, rows if there is None else rows.filter(pa.array(there))
        )
        history = [
            {"epoch": e, "train/loss": 1.2 / e, "valid/loss": 1.0 / e + 0.02 * e,
             "valid/mood/accuracy": 1 - 0.6 / e}
            for e in range(1, 9 + fold)
        ]  # fmt: skip
        storage.publish_bytes(
            "".join(json.dumps(record) + "\n" for record in history).encode(),
            storage.join(root, "runs", name, f"fold={fold}", "seed=0", "history.jsonl"),
        )
    config = {
        "folds": "speaker", "net": "gated", "inputs": ["egemaps", "minilm"],
        "net_options": {"dropout": 0.123456, "hidden": 64},
    }  # fmt: skip
    storage.publish_json(config, storage.join(root, "runs", name, "config.json"))
    for file in bundles.NET_FILES:
        storage.publish_bytes(b"{}", storage.join(root, "runs", name, "refit", "seed=0", file))


def _towards(target, width):
    return target if target.shape[1] == width else np.eye(width)[target[:, 0].astype(int)]


def two_runs(root, kind="classification", people=PEOPLE, gaps=0.0):
    """Two runs of which the second lacks a share of the clips."""
    target = prepare(root, kind, people)
    generator = np.random.default_rng(1)
    width = 1 if kind == "regression" else 3
    for name, skill in {"voice": (0, 1), "face_$x_y$": (1, 2)}.items():
        scores = generator.normal(size=(COUNT, width))
        for index in skill:
            if index < width:
                scores[:, index] += 2.2 * _towards(target, width)[:, index]
        there = generator.random(COUNT) >= (gaps if "face" in name else 0)
        add_run(root, name, target, scores, there)
    return ("voice", "face_$x_y$")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = str(tmp_path_factory.mktemp("report"))
    runs = two_runs(root)
    ensemble.main(ensemble.Config(root=root, runs=runs, resamples=100))
    where = report.main(
        report.Config(root=root, bundle="ensemble", resamples=200, limit=("best possible", 0.85))
    )
    folder = where.rsplit("/", 1)[0]
    return folder, storage.read_bytes(where).decode()


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.sources, self.texts = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        self.texts.append(data)


class TestThePage:
    def test_it_says_what_stands_behind_the_name_of_a_run(self, made):
        said = "gated of egemaps + minilm (dropout 0.123, hidden 64)"
        assert Page(made[1]).texts.count(said) == 2
        assert storage.exists(f"{made[0]}/runs.csv")

    def test_it_needs_nothing_from_elsewhere_and_runs_nothing(self, made):
        page = Page(made[1])
        assert "script" not in page.tags
        assert "link" not in page.tags
        assert page.sources
        assert all(source.startswith("data:image/png;base64,") for source in page.sources)
        assert "url(" not in made[1]

    def test_names_of_clips_and_classes_are_shown_as_they_are_and_not_obeyed(self, made):
        page = Page(made[1])
        assert "b" not in page.tags
        assert "<b>neutral</b>" in page.texts
        assert "<script" not in made[1]

    def test_every_baseline_stands_beside_the_ensemble(self, made):
        rows = read_csv(f"{made[0]}/results.csv")
        names = [row[0] for row in rows[1:]]
        assert names == [
            "majority", "voice", "face_$x_y$", "plain mean", "calibrated mean", "unfitted log pool",
            "ensemble", "shipped",
        ]  # fmt: skip

    def test_every_figure_has_an_interval(self, made):
        for row in read_csv(f"{made[0]}/results.csv")[1:]:
            assert re.fullmatch(r"\d\.\d{3} \[\d\.\d{3}, \d\.\d{3}\]", row[2])

    def test_protocol_seeds_and_n_stand_in_every_results_caption(self, made):
        assert "3 folds (speaker), out of fold, seeds 0, n = 120, 12 groups" in made[1]
        assert "3 folds (speaker), out of fold" in storage.read_bytes(
            f"{made[0]}/results.tex"
        ).decode().replace(r"\_", "_")

    def test_the_pictures_in_the_page_are_the_ones_beside_it(self, made):
        inside = {source.split(",", 1)[1] for source in Page(made[1]).sources}
        beside = {
            base64.b64encode(storage.read_bytes(f"{made[0]}/{name}")).decode()
            for name in storage.names(made[0], ".png")
        }
        assert inside == beside
        assert len(beside) == 6

    def test_the_worst_errors_are_named_wrong_and_sorted_by_conviction(self, made):
        header, *rows = read_csv(f"{made[0]}/worst.csv")
        assert header[:4] == ["clip", "group", "is", "said"]
        assert all(row[2] != row[3] for row in rows)
        conviction = np.array([float(row[4]) - float(row[5]) for row in rows])
        assert (np.diff(conviction) < 0.011).all()  # rounded to hundredths

    def test_seen_rows_look_better_than_unseen_ones(self, made):
        for row in read_csv(f"{made[0]}/roles.csv")[1:]:
            assert float(row[1]) > float(row[3])

    def test_ece_stands_beside_what_a_perfect_model_would_show(self, made):
        assert re.search(r"perfectly calibrated model would show 0\.\d{3} on average", made[1])

    def test_coverage_stands_by_class_and_by_person_as_people_left_out_would_meet_it(self, made):
        share = float(re.search(r"on the others: (\d+\.\d)% of the clips", made[1])[1]) / 100
        _, *classes = read_csv(f"{made[0]}/coverage_by_class.csv")
        counts, shares = np.array([[float(row[1]), float(row[2])] for row in classes]).T
        assert counts.sum() == COUNT
        assert counts @ shares / COUNT == pytest.approx(share, abs=1e-3)
        _, covered, sizes = read_csv(f"{made[0]}/coverage_by_person.csv")
        for row in (covered, sizes):
            spread = [float(cell) for cell in row[1:]]
            assert spread == sorted(spread)

    def test_per_class_figures_agree_with_the_confusion_matrix(self, made):
        _, *counts = read_csv(f"{made[0]}/confusion.csv")
        _, *each = read_csv(f"{made[0]}/per_class.csv")
        matrix = np.array([[int(cell) for cell in row[1:]] for row in counts])
        recall = matrix.diagonal() / matrix.sum(1)
        assert [float(row[2]) for row in each] == pytest.approx(recall, abs=6e-4)
        assert matrix.sum() == COUNT


@pytest.mark.parametrize("kind", ["regression", "multilabel"])
def test_other_kinds_of_task_get_their_own_sections(tmp_path, kind):
    root = str(tmp_path)
    runs = two_runs(root, kind)
    where = report.main(report.Config(root=root, runs=runs, resamples=100))
    text = storage.read_bytes(where).decode()
    assert {"regression": "<h2>Values</h2>", "multilabel": "<h2>Labels</h2>"}[kind] in text
    assert "<h2>Classes</h2>" not in text
    assert "<h2>Coverage</h2>" in text


@pytest.mark.parametrize("gaps", [0.0, 0.5])
@pytest.mark.parametrize("kind", ["classification", "regression", "multilabel"])
def test_coverage_is_that_of_thresholds_which_know_the_members_of_a_clip(
    tmp_path, capsys, kind, gaps
):
    root = str(tmp_path)
    runs = two_runs(root, kind, gaps=gaps)
    ensemble.main(ensemble.Config(root=root, runs=runs, rule="mean", resamples=100))
    said = float(re.search(r"coverage 0\.9: (0\.\d+) measured", capsys.readouterr().out)[1])
    where = report.main(report.Config(root=root, bundle="ensemble", resamples=100))
    text = storage.read_bytes(where).decode()
    share = float(re.search(r"on the others: (\d+\.\d)% of the clips", text)[1]) / 100
    assert share == pytest.approx(said, abs=1.1e-3)
    alike, evidence = gathered_alike(root)
    assert (np.nanmean(evidence.met[0]) == pytest.approx(alike)) == (gaps == 0)


def gathered_alike(root):
    """Coverage of what ships where all clips are taken as alike, and the evidence of the report."""
    evidence = gather(root, runs=(), bundle="ensemble", task=None, resamples=100, seed=0)
    code = evidence.groups.code.numpy()
    rows = HeldRows.alike(evidence.task.kind, evidence.focus.scores, evidence.target, code)
    return float(np.nanmean(left_out(rows, 0.9)[0])), evidence


@pytest.mark.parametrize("known", [[], [3], [9, 2, 5, 7]])
def test_coverage_is_found_by_clip_whatever_rows_a_report_shows(tmp_path, known):
    covered = np.array([[1.0, np.nan], [0.0, 1.0], [1.0, 1.0]])
    promised = Promised(conformal=None, covered=covered, size=np.array([1.0, np.nan, 3.0]))
    assert met(str(tmp_path), "b", np.array([2])) is None
    covered_file = storage.table_bytes(promised.table(np.array([2, 5, 9])))
    facts = {"members": []}
    bundles.publish(str(tmp_path), "b", facts, {layout.COVERED: covered_file})
    found, size = met(str(tmp_path), "b", np.array(known, np.int64))
    rows = [{2: 0, 5: 1, 9: 2}.get(clip) for clip in known]
    for at, row in enumerate(rows):
        np.testing.assert_array_equal(found[at], [np.nan] * 2 if row is None else covered[row])
        np.testing.assert_array_equal(size[at], np.nan if row is None else promised.size[row])


@pytest.mark.parametrize("kind", ["classification", "regression", "multilabel"])
def test_dialogues_are_shown_turn_by_turn_with_their_data(tmp_path, kind):
    root = str(tmp_path)
    runs = two_runs(root, kind)
    file = storage.join(root, "manifest", "h", "part-0.parquet")
    table = storage.read_table(file)
    rows = np.arange(COUNT)
    places = {
        "dialogue": pa.array([None if row < 20 else f"<i>{row % 5}" for row in rows]),
        "turn": pa.array((COUNT - rows) // 5),  # stored from the last to the first
    }
    for name, values in places.items():
        table = table.set_column(table.column_names.index(name), name, values)
    storage.publish_table(table, file)
    where = report.main(report.Config(root=root, runs=runs, resamples=100))
    assert "<h2>Over time</h2>" in storage.read_bytes(where).decode()
    header, *turns = read_csv(where.replace("report.html", "over_time.csv"))
    assert header[:4] == ["dialogue", "turn", "clip", "is"]
    assert len(turns) == COUNT - 20
    numbers = [int(turn[1]) for turn in turns if turn[0] == "<i>0"]
    assert numbers == sorted(numbers)
    if kind == "classification":
        assert header[4:] == list(CLASSES)
        assert all(sum(map(float, turn[4:])) == pytest.approx(1, abs=2e-3) for turn in turns)


def moments_of(kind, *, pieces=5):
    """tables.SCORES of the windows of six films, the last window of each without an answer."""
    rows = []
    for film in range(6):
        for piece in range(pieces + film):
            silent = piece == pieces + film - 1
            start = 2.0 * piece
            share = {} if kind == "regression" else dict.fromkeys(CLASSES, 0.1 * piece / pieces)
            rows.append(
                {"clip_id": film, "name": f"<b>{film}.mp4@{start:.3f}", "start_s": start,
                 "end_s": start + 5, "task": "mood", "bundle": "b",
                 "probabilities": None if silent or kind == "regression" else [*share.items()],
                 "value": None if silent or kind != "regression" else float(piece),
                 "status": "missing" if silent else "ok"}
            )  # fmt: skip
    table = pa.Table.from_pylist(rows[::-1], tables.SCORES.schema)
    return tables.SCORES.conform(table, footer={"bundle": "b"})


@pytest.mark.parametrize("kind", ["classification", "multilabel", "regression"])
def test_films_are_shown_window_by_window_with_their_data(tmp_path, kind):
    root = str(tmp_path)
    runs = two_runs(root, kind)
    where = storage.join(root, "moments.parquet")
    storage.publish_table(moments_of(kind), where)
    made = report.main(report.Config(root=root, runs=runs, resamples=100, moments=where))
    shown = storage.read_bytes(made).decode()
    assert "<h2>Moments of films</h2>" in shown
    assert "<b>5.mp4" not in shown
    header, *pieces = read_csv(made.replace("report.html", "moments.csv"))
    assert header[:4] == ["film", "start_s", "end_s", "status"]
    assert len(pieces) == sum(5 + film for film in range(6))
    assert [float(piece[1]) for piece in pieces if piece[0] == "<b>5.mp4"] == [
        2.0 * place for place in range(10)
    ]
    assert [piece[4] for piece in pieces if piece[3] == "missing"] == ["nan"] * 6


@pytest.mark.parametrize("pieces", [1, 5])
def test_the_axis_of_a_film_goes_from_its_beginning_to_its_last_window(
    tmp_path, monkeypatch, pieces
):
    drawn = []
    monkeypatch.setattr(
        sections_moments, "over_time", lambda courses, *_: drawn.extend(courses) or b""
    )
    root = str(tmp_path)
    runs = two_runs(root, "classification")
    where = storage.join(root, "moments.parquet")
    storage.publish_table(moments_of("classification", pieces=pieces), where)
    report.main(report.Config(root=root, runs=runs, resamples=100, moments=where))
    spans = {course.name: course.span for course in drawn}
    assert spans["<b>5.mp4"] == (0.0, 2.0 * (pieces + 4) + 5)


def test_films_that_several_bundles_scored_have_a_course_for_each(tmp_path):
    one = moments_of("classification")
    other = one.set_column(
        one.column_names.index("bundle"), "bundle", pa.array(["c"] * len(one), pa.string())
    )
    alone, both = films_of(one, "mood"), films_of(pa.concat_tables([one, other]), "mood")
    assert {f"{film} ({bundle})" for film in alone for bundle in "bc"} == set(both)
    assert all(len(both[f"{film} (b)"]) == len(pieces) for film, pieces in alone.items())


def test_moments_of_whole_clips_or_of_another_task_are_refused_with_what_to_type(tmp_path):
    root = str(tmp_path)
    runs = two_runs(root, "classification")
    table = moments_of("classification")
    for name, other in (("start_s", pa.nulls(len(table), pa.float64())),
                        ("task", pa.array(["other"] * len(table)))):  # fmt: skip
        where = storage.join(root, f"{name}.parquet")
        changed = table.set_column(table.column_names.index(name), name, other)
        storage.publish_table(tables.SCORES.conform(changed, footer={"bundle": "b"}), where)
        with pytest.raises(ConfigError, match="type: affuse score FILM --bundle B --by window"):
            report.main(report.Config(root=root, runs=runs, resamples=100, moments=where))


def test_the_test_split_stands_in_the_report_once_it_was_evaluated(tmp_path):
    root = str(tmp_path)
    runs = two_runs(root)
    ensemble.main(ensemble.Config(root=root, runs=runs, resamples=100))
    facts = storage.read_json(f"{root}/bundles/ensemble/results.json")
    storage.publish_json(facts, f"{root}/evaluations/ensemble/results.json")
    storage.publish_json({}, f"{root}/looks/first.json")
    where = report.main(report.Config(root=root, bundle="ensemble", resamples=100))
    text = storage.read_bytes(where).decode()
    assert "<h2>Test split</h2>" in text
    assert "Looks at the test split so far: 1." in text


def test_an_evaluation_of_runs_with_long_names_is_found(tmp_path):
    root = str(tmp_path)
    target = prepare(root)
    names = tuple(letter * 90 for letter in "abc")
    for seed, name in enumerate(names):
        add_run(root, name, target, np.random.default_rng(seed).normal(size=(COUNT, 3)))
    ensemble.main(ensemble.Config(root=root, runs=names, resamples=100))
    facts = storage.read_json(f"{root}/bundles/ensemble/results.json")
    made = evaluate.Config(root=root, runs=names).name
    storage.publish_json(facts, f"{root}/evaluations/{made}/results.json")
    found = gather(root, runs=names, bundle=None, task=None, resamples=100, seed=0)
    assert found.tested is not None


def test_the_search_that_a_run_came_from_is_pictured(tmp_path):
    root = str(tmp_path)
    target = prepare(root)
    add_run(root, "hunt-00003", target, np.random.default_rng(0).normal(size=(COUNT, 3)))
    trials = {
        "number": [0, 1, 3], "state": ["finished", "pruned", "finished"], "score": [1.2, 1.5, 1.1],
        "value/lr": [1e-3, 1e-4, 1e-2], "value/net": ["tfn", "lmf", "lmf"],
    }  # fmt: skip
    storage.publish_table(pa.table(trials), storage.join(root, "runs", "hunt", "trials.parquet"))
    facts = {"importance": {"lr": 0.8, "net": 0.2}}
    storage.publish_json(facts, storage.join(root, "runs", "hunt", "summary.json"))
    for score, said in ((None, "nll"), ("accuracy", "-accuracy")):
        asked = {"score": score, "tasks": []}
        storage.publish_json(asked, storage.join(root, "runs", "hunt", "config.json"))
        assert searches(root, ["hunt-00003"])["hunt"].metric == f"{said} (lower is better)"
    where = report.main(report.Config(root=root, runs=("hunt-00003",), resamples=100))
    assert "<h2>Search</h2>" in storage.read_bytes(where).decode()
    names = storage.names(where.rsplit("/", 1)[0], ".png")
    assert {"trials_hunt.png", "importance_hunt.png"} <= set(names)


@pytest.mark.parametrize("at", ["while it searched", "while members were made"])
def test_the_first_bundle_of_a_search_that_was_stopped_has_its_report(tmp_path, at):
    root, names = str(tmp_path), ("hunt-00000", "hunt-00001")
    target = prepare(root)
    for seed, name in enumerate(names):
        add_run(root, name, target, np.random.default_rng(seed).normal(size=(COUNT, 3)))
    asked = {"score": None, "tasks": []}
    storage.publish_json(asked, storage.join(root, "runs", "hunt", "config.json"))
    storage.publish_json({}, storage.join(root, "runs", "hunt", "space.json"))
    if at == "while members were made":
        trials = {
            "number": [0, 1], "state": ["finished"] * 2, "score": [1.2, 1.5],
            "value/lr": [1e-3, 1e-4], "value/net": ["tfn", "lmf"],
        }  # fmt: skip
        uri = storage.join(root, "runs", "hunt", "trials.parquet")
        storage.publish_table(pa.table(trials), uri)
    ensemble.main(ensemble.Config(root=root, runs=names, bundle="hunt", resamples=100))
    assert affuse(["report", "--root", root, "--bundle", "hunt", "--resamples", "100"]) == 0
    page = storage.read_bytes(storage.join(root, "reports", "hunt", "report.html")).decode()
    assert "Not ended: hunt. The same affuse tune goes on" in page
    pictures = storage.names(storage.join(root, "reports", "hunt"), ".png")
    assert ("trials_hunt.png" in pictures) == (at == "while members were made")


def test_which_of_several_tasks_is_shown_is_said_and_how_another_is_chosen(tmp_path, capsys):
    root = str(tmp_path)
    runs = two_runs(root)
    facts = storage.read_json(f"{root}/dataset.json")
    facts["tasks"]["valence"] = {"kind": "regression"}
    storage.publish_json(facts, f"{root}/dataset.json")
    said = "task mood; type --task NAME for another one: valence"
    for task in (None, "mood"):
        where = report.main(report.Config(root=root, runs=runs, task=task, resamples=100))
        assert (said in capsys.readouterr().out) == (task is None)
    assert (
        "mood (classification); others: valence" in Page(storage.read_bytes(where).decode()).texts
    )


def test_few_groups_are_warned_about(tmp_path):
    runs = two_runs(str(tmp_path), people=4)
    where = report.main(report.Config(root=str(tmp_path), runs=runs, resamples=100))
    text = storage.read_bytes(where).decode()
    assert "only 4 groups: the intervals say little" in text
    assert "4 groups are too few to say what excludes answers at a coverage of 0.9" in text


def test_a_report_on_nothing_is_refused():
    with pytest.raises(ConfigError, match="name --runs, a --bundle, or both"):
        report.Config(root="r")


def test_a_run_that_is_not_there_is_named_with_those_that_are(tmp_path):
    two_runs(str(tmp_path))
    with pytest.raises(NotPreparedError, match=r"'vioce' has no predictions .*voice"):
        report.main(report.Config(root=str(tmp_path), runs=("vioce",), resamples=100))


class TestTables:
    def test_latex_special_characters_are_set_as_they_stand(self):
        assert latex(r"a_b & 5% {c} \d") == r"a\_b \& 5\% \{c\} \textbackslash{}d"

    def test_a_spreadsheet_gets_no_formula(self):
        grid = Grid(name="g", caption="c", header=["a"], rows=[["=1+1"], ["-0.5 [0, 1]"], ["@x"]])
        assert grid.csv().splitlines() == ["a", "'=1+1", '"-0.5 [0, 1]"', "'@x"]

    def test_the_strong_row_is_bold_in_html_and_latex(self):
        grid = Grid(name="g", caption="c", header=["a"], rows=[["x"], ["y"]], strong=frozenset({1}))
        assert '<tr class="strong"><td>y</td>' in grid.html()
        assert r"\textbf{y}" in grid.latex()


class TestPlots:
    @pytest.mark.parametrize("trials", [1, 40])
    def test_parallel_coordinates_take_numbers_words_and_flags(self, trials):
        generator = np.random.default_rng(0)
        columns = {
            "lr": list(10 ** generator.uniform(-4, -2, trials)),
            "net": list(generator.choice(["tfn", "lmf", "concat_mlp"], trials)),
            "rank": [4, *[None] * (trials - 1)],
            "pool": [bool(value) for value in generator.integers(0, 2, trials)],
        }
        assert plots.parallel(columns, list(generator.random(trials)), "score")[:4] == b"\x89PNG"

    def test_the_interval_of_a_share_has_a_width_at_zero_and_one(self):
        assert plots.wilson(1.0, 10) == pytest.approx((0.7225, 1.0), abs=1e-3)
        assert plots.wilson(0.0, 10) == pytest.approx((0.0, 0.2775), abs=1e-3)

    def test_drawing_leaves_the_style_of_the_process_alone(self):
        import matplotlib as mpl

        before = dict(mpl.rcParams)
        plots.bars({"a": 0.5, "b": -0.1}, "weight")
        assert dict(mpl.rcParams) == before


def read_csv(path):
    return list(csv.reader(storage.read_bytes(path).decode().splitlines()))
