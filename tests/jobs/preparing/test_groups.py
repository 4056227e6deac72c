"""Who is groups: a group is never cut, the summary says what it was made of, too few are refused."""

from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoders.media import Source
from jobs.__main__ import run
from jobs.catalog import manifest
from jobs.preparing.adapter import Row
from jobs.preparing.splitting import deal
from tests.jobs.preparing.clip_rows import groups_of


@pytest.fixture
def prepare(tmp_path, capsys):
    """Runs `affuse prepare folder` on a table; returns exit status, output and rows."""

    def go(table, *flags):
        (tmp_path / "media").mkdir(exist_ok=True)
        (tmp_path / "labels.csv").write_text(table)
        root = tmp_path / "root"
        arguments = ["--source", tmp_path / "media", "--labels", tmp_path / "labels.csv"]
        arguments += ["--root", root, "--tasks", "mood=classification", "--workers", "1", *flags]
        status = run(["prepare", "folder", *map(str, arguments)])
        said = capsys.readouterr()
        rows = manifest.read_manifest(str(root)).to_pylist() if status == 0 else []
        return status, said.out + said.err, rows

    return go


def parts_of(rows, key, part_of):
    """Group -> the parts that its clips lie in."""
    found = defaultdict(set)
    for row in rows:
        found[key(row)].add(part_of(row))
    return found


FILMS = "name,audio,start_s,end_s,mood\n" + "".join(
    f"s{k},film{k // 10}.wav,{k % 10},{k % 10 + 2},{'ab'[k % 2]}\n" for k in range(40)
)


class TestWhatAGroupIs:
    def test_segments_of_one_film_share_split_and_fold(self, prepare, tmp_path):
        status, said, rows = prepare(FILMS, "--split", "60/20/20", "--folds", "2")
        assert status == 0
        assert "groups: 4 by file" in said
        folds = manifest.read_folds(str(tmp_path / "root"), "group2")
        film = lambda row: row["audio"]["uri"]  # noqa: E731
        splits = parts_of(rows, film, lambda row: row["split"])
        assert {len(found) for found in splits.values()} == {1}
        assert set.union(*splits.values()) == {"train", "valid", "test"}
        cut = parts_of(rows, film, lambda row: folds.get(row["clip_id"]))
        assert {len(found) for found in cut.values()} == {1}
        assert {row["group"] for row in rows} == {f"film{k}.wav" for k in range(4)}

    @pytest.mark.parametrize(
        ("columns", "basis"),
        [
            ("group,speaker,dialogue", "group"),
            ("speaker,dialogue", "speaker"),
            ("dialogue", "dialogue"),
        ],
    )
    def test_the_first_that_is_named_tells_the_clips_apart(self, prepare, columns, basis):
        names = columns.split(",")
        lines = [
            f"s{k},film.wav,{k},{k + 2},{'ab'[k % 2]}," + ",".join(f"{n}{k // 3}" for n in names)
            for k in range(9)
        ]
        table = f"name,audio,start_s,end_s,mood,{columns}\n" + "\n".join(lines)
        status, said, rows = prepare(table)
        assert status == 0
        assert f"groups: 3 by {basis}\n" in said
        assert {row["group"] for row in rows} == {f"{basis}{k}" for k in range(3)}

    def test_clips_that_nothing_binds_are_groups_of_one_and_it_is_warned_of(self, prepare):
        status, said, _ = prepare(
            "name,mood\n" + "".join(f"c{k},{'ab'[k % 2]}\n" for k in range(6))
        )
        assert status == 0
        assert "groups: 6 by clip" in said
        assert "each clip is its own group" in said
        assert "--columns speaker=COLUMN" in said

    def test_rows_without_a_speaker_stay_with_their_film(self):
        film = Source("/m/f.mp4")
        rows = [
            Row(name="a", video=film, speaker="ann"),
            Row(name="b", video=film),
            Row(name="c", audio=Source("/m/g.wav"), video=film),
            Row(name="d", audio=Source("/m/g.wav")),
            Row(name="e", audio=Source("/m/h.wav")),
        ]
        found, grouping = groups_of(rows, "/m")
        assert found == ["ann", "f.mp4", "f.mp4", "f.mp4", "e"]
        assert grouping.groups == {"speaker": 1, "file": 1, "clip": 1}

    def test_members_of_one_shard_are_files_of_their_own(self):
        rows = [Row(name=str(k), audio=Source("/m/s.tar", 512 * k, 9)) for k in range(3)]
        assert groups_of(rows)[0] == ["0", "1", "2"]


class TestTooFew:
    TABLE = "name,mood,speaker\n" + "".join(f"c{k},{'ab'[k % 2]},ann\n" for k in range(6))

    @pytest.mark.parametrize(
        ("flags", "parts"),
        [(("--split", "60/20/20"), "3 parts"), (("--folds", "2"), "2 folds")],
    )
    def test_it_is_refused_with_what_to_type(self, prepare, flags, parts):
        status, said, _ = prepare(self.TABLE, *flags)
        assert status != 0
        assert f"only 1 group (by speaker: ann), too few for {parts}" in said
        assert "--columns group=name" in said

    def test_what_is_told_to_be_typed_works(self, prepare):
        status, _, rows = prepare(self.TABLE, "--split", "60/20/20", "--columns", "group=name")
        assert status == 0
        assert {row["split"] for row in rows} == {"train", "valid", "test"}

    def test_a_film_that_stands_in_two_given_splits_is_refused(self, prepare):
        table = "name,audio,start_s,end_s,mood,split\ns0,f.wav,0,1,a,train\ns1,f.wav,1,2,b,test\n"
        status, said, _ = prepare(table)
        assert status == 1
        assert "group 'f.wav' stands in more than one split: test, train" in said


class TestDealing:
    @settings(max_examples=200)
    @given(
        sizes=st.dictionaries(st.text("abcdef", min_size=1), st.integers(1, 500), min_size=3),
        shares=st.lists(st.integers(0, 95), min_size=2, max_size=3).filter(any),
    )
    def test_every_part_that_has_a_share_gets_a_group(self, sizes, shares):
        total = sum(shares)
        ordered = sorted(sizes.items(), key=lambda pair: -pair[1])
        parts = [share / total for share in shares]
        part_of = dict(deal(ordered, parts, [], rest=len(sizes), total=sum(sizes.values())))
        assert set(part_of) == set(sizes)
        assert {k for k, share in enumerate(shares) if share} <= set(part_of.values())

    def test_another_seed_cuts_other_folds_and_says_so(self, prepare, tmp_path):
        table = "name,mood,speaker\n" + "".join(f"c{k},{'ab'[k % 2]},p{k}\n" for k in range(12))
        cut = {}
        for seed in ("0", "1", "0"):
            status, said, _ = prepare(table, "--folds", "3", "--seed", seed)
            assert status == 0
            folds = manifest.read_folds(str(tmp_path / "root"), "group3")
            assert cut.setdefault(seed, folds) == folds
        assert "cut anew: seed 0, before 1" in said
        assert cut["0"] != cut["1"]
