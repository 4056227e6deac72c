"""EmoBox's lists become clips, folds and splits; damaged lists are faults."""

import json

import pytest

from cluster.errors import ConfigError, LabelTableError, NotPreparedError
from jobs.__main__ import main
from tests.jobs.datasets.official_layouts import emobox_line
from tests.jobs.datasets.test_conformance import config_of
from tests.jobs.preparing.clip_rows import checked


def write(folder, lists, words=None):
    """lists: {(fold, part): lines}."""
    data = folder / "data" / "toy"
    for (fold, part), lines in lists.items():
        file = data / f"fold_{fold}" / f"toy_{part}_fold_{fold}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (data / "label_map.json").write_text(json.dumps(words or {"a": "Angry", "h": "Happy"}))
    return folder


def line(name, emo="a", **more):
    return emobox_line(name, emo) | {"key": f"toy-{name}"} | more


def collected(folder, **options):
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    options = {"corpus": "toy"} | options
    return config_of("emobox", elsewhere, source=str(folder), **options).collect()


def test_one_fold_is_the_split_of_its_clips(tmp_path):
    lists = {(1, part): [line(part)] for part in ("train", "valid", "test")}
    result = collected(write(tmp_path, lists))
    assert {row.name: row.split for row in checked(result)} == {
        "toy-train": "train", "toy-valid": "valid", "toy-test": "test",
    }  # fmt: skip
    assert not result.folds


def test_several_folds_are_those_that_test_a_clip(tmp_path):
    one, two, held = line("one"), line("two", "h"), line("held")
    lists = {(1, "train"): [one, held], (1, "test"): [two], (2, "train"): [two, held]}
    result = collected(write(tmp_path, lists | {(2, "test"): [one]}))
    assert result.folds == {"emobox": {"toy-two": 0, "toy-one": 1}}
    assert len(checked(result)) == 3


def test_people_on_both_sides_of_published_folds_are_told_or_kept_apart(tmp_path):
    lists = {(1, "train"): [line("s1_a"), line("s2_a")], (1, "test"): [line("s1_b", "h")]}
    write(tmp_path, lists)
    published = collected(tmp_path, speakers="(s[0-9])_")
    assert "1 speakers or recordings" in published.notes[0]
    assert {row.group for row in checked(published)} == {"toy-s1_a", "toy-s1_b", "toy-s2_a"}
    apart = collected(tmp_path, speakers="(s[0-9])_", by_speaker=True)
    assert not apart.notes
    assert [(row.speaker, row.group, row.split) for row in checked(apart)] == [
        ("s1", None, None), ("s1", None, None), ("s2", None, None),
    ]  # fmt: skip


def test_clips_that_are_cut_from_one_recording_have_their_times(tmp_path):
    cut = [
        line(n, wav="downloads/toy/all.flac", start_time=k, end_time=k + 1.5)
        for k, n in enumerate("ab")
    ]
    rows = checked(collected(write(tmp_path, {(1, "train"): cut[:1], (1, "test"): cut[1:]})))
    assert sorted((row.start_s, row.end_s) for row in rows) == [(0, 1.5), (1, 2.5)]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([line("x"), line("x")], "stands twice in fold 1"),
        ([line("x"), line("x", "h")], "toy-x is h of"),
        ([line("y"), line("x", "zz")], "'zz' is not among its classes"),
        ([line("y"), {"key": "toy-x", "emo": "a"}], "KeyError('wav')"),
        ([line("y"), line("x", wav="../../etc/passwd")], "does not lie below the source"),
        ([line("y"), line("x", wav="/etc/passwd")], "does not lie below the source"),
        ([line("y"), ["x"]], "line 2"),
        ([line("y"), line("x", start_time="soon", end_time=2)], "line 2"),
    ],
    ids=[
        "twin",
        "two labels",
        "unknown label",
        "no sound",
        "climbs",
        "absolute",
        "no object",
        "time",
    ],
)
def test_a_damaged_list_is_a_fault(lines, said, tmp_path):
    write(tmp_path, {(1, "train"): lines})
    with pytest.raises(LabelTableError) as caught:
        checked(collected(tmp_path))
    assert said in str(caught.value)


def test_half_a_line_and_a_map_that_is_no_map_are_refused(tmp_path):
    write(tmp_path, {(1, "train"): [line("y")]})
    file = next(tmp_path.rglob("*.jsonl"))
    file.write_text(file.read_text() + '{"key": "toy-')
    with pytest.raises(LabelTableError, match="line 2"):
        checked(collected(tmp_path))
    (tmp_path / "data" / "toy" / "label_map.json").write_text("[1]")
    with pytest.raises(LabelTableError, match="not a map of labels"):
        collected(tmp_path)


def test_a_corpus_that_is_not_there_and_a_missing_map_are_named(tmp_path):
    write(tmp_path, {(1, "train"): [line("y")]})
    with pytest.raises(NotPreparedError, match=r"found none of --corpus toi .*toy"):
        collected(tmp_path, corpus="toi")
    (tmp_path / "data" / "toy" / "label_map.json").unlink()
    with pytest.raises(NotPreparedError, match=r"data/toy/label_map\.json"):
        collected(tmp_path)


@pytest.mark.parametrize("corpus", ["toi", "none{0}", "{corpus}"])
@pytest.mark.parametrize("filled", [True, False])
def test_the_corpus_that_was_typed_stands_in_what_is_looked_for(corpus, filled, tmp_path, capsys):
    if filled:
        write(tmp_path, {(1, "train"): [line("y")]})
    flags = ["emobox", "--source", str(tmp_path), "--corpus", corpus, "--root", f"{tmp_path}-root"]
    with pytest.raises(SystemExit) as ended:
        main(["prepare", *flags])
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert f"expected data/{corpus}/fold_1/{corpus}_test_fold_1.jsonl, found none" in said
    assert ("did you mean 'toy'" in said) == (filled and corpus == "toi")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"speakers": "("}, "not a pattern"),
        ({"speakers": "s"}, "bracket"),
        ({"by_speaker": True}, "--speakers"),
    ],
)
def test_patterns_of_speakers_are_checked_before_anything_is_read(options, said, tmp_path):
    with pytest.raises(ConfigError, match=said):
        collected(tmp_path, **options)
