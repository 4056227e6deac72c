"""The search over late fusion: all rules, calibrations and subsets; no fold chooses for itself."""

import numpy as np
import pytest
import torch

from cluster import storage
from cluster.errors import ConfigError
from cluster.session import SessionConfig
from fusion.late import LATE, rule_class
from fusion.late.members import Members
from jobs import ensemble
from jobs.catalog.predictions import HeldOut
from jobs.evaluation import cross_fitting
from jobs.tuning import late_fusion

NAMES = ("face", "noise", "voice")


@pytest.fixture(scope="module")
def held() -> HeldOut:
    """Two members that are right about different classes, and one that knows nothing; 90 rows in 3 folds."""
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(3, (90,), generator=generator)
    scores = torch.randn(3, 90, 3, generator=generator, dtype=torch.float64)
    for member, classes in {0: (0, 1), 2: (1, 2)}.items():
        for index in classes:
            scores[member, :, index] += 2.5 * (target == index)
    return HeldOut(
        clip_id=np.arange(90),
        fold=np.arange(90) // 10 % 3,
        target=target,
        members=Members(
            names=NAMES,
            kind="classification",
            scores=scores.log_softmax(-1),
            present=torch.ones(3, 90, dtype=torch.bool),
        ),
    )


class TestTheDraw:
    def test_options_are_named_for_every_rule_and_taken_by_it(self):
        assert list(late_fusion.OPTIONS) == list(LATE)
        for rule, options in late_fusion.OPTIONS.items():
            for name, choices in options.items():
                for choice in choices:
                    rule_class(rule).Config(**{name: choice})

    def test_candidates_differ_and_are_the_same_for_the_same_seed(self):
        first = late_fusion.drawn("classification", NAMES, 60, 0)
        assert first == late_fusion.drawn("classification", NAMES, 60, 0)
        assert first != late_fusion.drawn("classification", NAMES, 60, 1)
        assert len({candidate.key for candidate in first}) == len(first) == 60

    def test_rules_calibrations_and_subsets_are_all_drawn(self):
        drawn = late_fusion.drawn("classification", NAMES, 300, 0)
        assert {c.rule for c in drawn} == set(LATE)
        assert {c.calibration for c in drawn} == set(late_fusion.CALIBRATIONS)
        assert {c.member_calibration for c in drawn} == set(late_fusion.MEMBER_CALIBRATIONS)
        pairs = {("face", "noise"), ("face", "voice"), ("noise", "voice")}
        assert {c.members for c in drawn} == {(), *pairs}

    def test_a_regression_draws_rules_that_have_a_meaning_for_it(self):
        drawn = late_fusion.drawn("regression", NAMES, 100, 0)
        assert drawn
        assert all("regression" in rule_class(c.rule).kinds for c in drawn)
        assert {c.member_calibration for c in drawn} == {"none"}

    def test_a_small_space_ends_the_draw(self):
        drawn = late_fusion.drawn("regression", ("voice", "face"), 10_000, 0)
        assert len(drawn) < 200


class TestTheChoice:
    def test_judgements_made_elsewhere_choose_what_is_chosen_here(self, held):
        candidates = late_fusion.drawn("classification", NAMES, 8, 0)
        known = {c.key: cross_fitting.PairFits(held, held.fold).judgements(c) for c in candidates}
        here = cross_fitting.cross_fitted(held, candidates, held.fold)
        there = cross_fitting.cross_fitted(held, candidates, held.fold, known)
        assert here.chosen == there.chosen
        torch.testing.assert_close(here.scores, there.scores, rtol=0, atol=0)
        assert cross_fitting.choose(held, candidates, held.fold) == cross_fitting.choose(
            held, candidates, held.fold, known
        )

    @pytest.mark.slow
    def test_what_candidates_share_changes_none_of_them(self, held):
        shared = cross_fitting.PairFits(held, held.fold)
        for candidate in late_fusion.drawn("classification", NAMES, 12, 1):
            alone = cross_fitting.PairFits(held, held.fold)
            assert shared.judgements(candidate) == alone.judgements(candidate)

    def test_a_folds_own_targets_change_no_judgement_that_is_made_without_it(self, held):
        changed = held.target.clone()
        changed[torch.from_numpy(held.fold == 1)] = 0
        other = HeldOut(clip_id=held.clip_id, fold=held.fold, target=changed, members=held.members)
        candidate = cross_fitting.Candidate(rule="log_pool", calibration="vector")
        before = cross_fitting.PairFits(held, held.fold).judgements(candidate)
        after = cross_fitting.PairFits(other, held.fold).judgements(candidate)
        assert before[1] == after[1]
        assert before[0] != after[0]
        assert before[None] != after[None]

    def test_two_folds_leave_nothing_to_choose_without_one_of_them(self, held):
        found = cross_fitting.PairFits(held, held.fold % 2).judgements(cross_fitting.PLAIN)
        assert list(found) == [None]

    def test_trials_without_auto_are_refused(self):
        with pytest.raises(ConfigError, match="search only with --rule auto"):
            ensemble.Config(root="r", runs=("a",), trials=3)


@pytest.mark.ray
@pytest.mark.slow
def test_a_search_that_was_stopped_judges_only_what_is_missing(held, tmp_path, capsys):
    root, session = str(tmp_path), SessionConfig(address="local", num_cpus=2)
    candidates = late_fusion.drawn("classification", NAMES, 6, 0)
    late_fusion.searched(held, candidates[:4], held.fold, root=root, session=session)
    found = late_fusion.searched(held, candidates, held.fold, root=root, session=session)
    assert "2 candidates to judge, 4 are there" in capsys.readouterr().out
    again = late_fusion.searched(held, candidates, held.fold, root=root, session=session)
    assert "to judge" not in capsys.readouterr().out
    here = {c.key: cross_fitting.PairFits(held, held.fold).judgements(c) for c in candidates}
    assert found == again == here
    (folder,) = storage.names(f"{root}/searches")
    assert len(storage.names(f"{root}/searches/{folder}", ".json")) == 6
    other = late_fusion.identity(held.rows(np.arange(80)), held.fold[:80])
    assert other != folder
