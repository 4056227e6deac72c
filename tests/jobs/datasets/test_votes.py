"""Raters' votes from CREMA-D's table and IEMOCAP's forms, in the manifest and out again."""

import numpy as np
import pytest

from cluster.errors import LabelTableError, NotPreparedError
from cluster.settings import from_mapping
from jobs import prepare
from jobs.catalog.manifest import read_dataset, read_manifest
from jobs.catalog.votes import votes_on
from jobs.datasets import cremad, iemocap
from tests.jobs.datasets import official_layouts
from tests.jobs.datasets.official_layouts import touch, write_csv
from tests.jobs.preparing.clip_rows import checked

HEADER = ["", *"ADFHNS", "fileName", "numResponses", "agreement", "emoVote"]
LINES = [
    ["100001", 0, 0, 0, 1, 2, 0, "1001_DFA_ANG_XX", 3, 0.67, "N"],
    ["200001", 3, 0, 0, 0, 0, 0, "1001_DFA_ANG_XX", 3, 1, "A"],
    ["300001", 1, 1, 0, 0, 0, 0, "1001_DFA_ANG_XX", 2, 0.5, "A:D"],
    ["300002", 0, 0, 0, 4, 0, 0, "1001_IEO_HAP_HI", 4, 1, "H"],
]


def cremad_config(folder, lines=LINES, **options):
    official_layouts.cremad(folder)
    write_csv(folder / "processedResults" / "tabulatedVotes.csv", HEADER, lines)
    given = {"root": str(folder / "root"), "source": str(folder), **options}
    return from_mapping(cremad.Config, given)


class TestCremaD:
    @pytest.mark.parametrize(
        ("shown", "first"),
        [
            ("voice", [[0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 1, 0]]),
            ("face", [[1, 0, 0, 0, 0, 0]] * 3),
            ("both", [[1, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0]]),
        ],
    )
    def test_votes_are_those_of_raters_who_were_shown_it(self, shown, first, tmp_path):
        rows = checked(cremad_config(tmp_path, votes=shown).collect())
        assert rows[0].votes["emotion"] == first
        assert rows[0].labels == {"emotion": "angry"}
        assert not rows[2].votes

    def test_without_the_option_nothing_changes(self, tmp_path):
        (tmp_path / "a").mkdir()
        config = cremad_config(tmp_path / "a")
        prepare.main(config)
        assert "votes" not in read_manifest(config.root).column_names
        assert read_dataset(config.root).votes == ()

    def test_they_come_out_of_the_manifest_in_the_order_of_clips(self, tmp_path):
        config = cremad_config(tmp_path, votes="both")
        prepare.main(config)
        dataset = read_dataset(config.root)
        assert dataset.votes == ("emotion",)
        table = read_manifest(config.root)
        order = np.argsort(table["name"].to_numpy())[::-1]
        clips = table["clip_id"].to_numpy()[order]
        votes = votes_on(config.root, clips, "emotion", dataset.tasks["emotion"])
        happy, angry = [0, 0, 0, 4, 0, 0], [1, 1, 0, 0, 0, 0]
        assert votes.total.tolist() == [[0] * 6, happy, angry]

    @pytest.mark.parametrize(
        ("line", "said"),
        [
            (["300003", 1, 1, 0, 0, 0, 0, "1002_IEO_SAD_LO", 5, 1, "S"], "2 votes of 5 responses"),
            (["300003", "x", 1, 0, 0, 0, 0, "1002_IEO_SAD_LO", 1, 1, "S"], "invalid literal"),
            (["300003", -1, 2, 0, 0, 0, 0, "1002_IEO_SAD_LO", 1, 1, "S"], "expected counts"),
            (["300003", 0, 0, 0, 1, 0, 0, "1001_IEO_HAP_HI", 1, 1, "S"], "stands twice"),
            (["", 0, 0, 0, 1, 0, 0, "1002_IEO_SAD_LO", 1, 1, "S"], "row 5"),
        ],
        ids=["shifted", "no number", "below zero", "twin", "no number of a row"],
    )
    def test_a_damaged_table_of_votes_is_refused(self, line, said, tmp_path):
        with pytest.raises(LabelTableError, match=said):
            checked(cremad_config(tmp_path, [*LINES, line], votes="both").collect())

    def test_a_table_that_is_not_there_is_named(self, tmp_path):
        config = cremad_config(tmp_path, votes="both")
        (tmp_path / "processedResults" / "tabulatedVotes.csv").unlink()
        with pytest.raises(NotPreparedError, match=r"tabulatedVotes\.csv"):
            config.collect()


FORM = """% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]

[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]
C-E2:\tNeutral;\t()
C-E3:\tNeutral; Sadness;\t(a bit)
C-E4:\tOther;\t(bored)
C-F1:\tAnger;\t()
A-E3:\tval 3; act 2; dom  2;\t()

[1.0000 - 2.0000]\tSes01F_impro01_M000\txxx\t[2.5000, 2.5000, 2.5000]
C-E2:\tExcited;\t()
C-E4:\tAnger;\t()
"""


class TestIemocap:
    def config(self, folder, **options):
        label = folder / "Session1" / "dialog" / "EmoEvaluation" / "Ses01F_impro01.txt"
        touch(label)
        label.write_text(FORM)
        given = {"root": str(folder / "root"), "source": str(folder), "media": "none", **options}
        return from_mapping(iemocap.Config, given)

    def test_evaluators_alone_vote_and_share_their_vote_among_their_choices(self, tmp_path):
        rows = checked(self.config(tmp_path, votes=True, scheme="four").collect())
        votes = {row.name: row.votes["emotion"] for row in rows}
        # angry, happy, neutral, sad
        assert votes["Ses01F_impro01_F000"] == [[0, 0, 1, 0], [0, 0, 0.5, 0.5]]
        assert votes["Ses01F_impro01_M000"] == [[0, 1, 0, 0], [1, 0, 0, 0]]

    def test_without_the_option_there_are_none(self, tmp_path):
        assert not any(row.votes for row in self.config(tmp_path).collect().rows)
