"""What a model is asked, and how its reply becomes probabilities."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import ConfigError
from fusion.tasks import Task
from jobs.asking import question
from jobs.asking.question import Question, averaged, from_json, from_letters, orders, questions_of
from tests.jobs.asking.fake_server import words_of

OPTIONS = ("calm", "glad", "sad", "cross")


def letters(shares, tokens="ABCD"):
    listed = [
        {"token": token, "logprob": math.log(share)}
        for token, share in zip(tokens, shares, strict=True)
    ]
    return {"choices": [{"logprobs": {"content": [{"top_logprobs": listed}]}}]}


def listing(value):
    """A reply with two letters, one of them with a log-probability that may be none."""
    listed = [{"token": "A", "logprob": value}, {"token": "B", "logprob": -1.0}]
    return {"choices": [{"logprobs": {"content": [{"top_logprobs": listed}]}}]}


def written(text):
    return {"choices": [{"message": {"content": text}}]}


class TestOrders:
    @given(options=st.integers(1, 26), wanted=st.integers(0, 30))
    @settings(max_examples=60)
    def test_each_is_a_rotation_and_no_two_are_alike(self, options, wanted):
        found = orders(options, wanted)
        assert len(found) == min(wanted or options, options)
        assert len({order[0] for order in found}) == len(found)
        assert all(sorted(order) == list(range(options)) for order in found)

    @given(
        st.lists(st.floats(-3, 3), min_size=4, max_size=4), st.permutations([0.0, 1.0, 2.0, 5.0])
    )
    @settings(max_examples=40)
    def test_a_liking_for_places_cancels_out_over_all_orders(self, belief, liking):
        asked = orders(4, 0)
        replies = [np.array(belief)[order] + np.array(liking) for order in asked]
        found = averaged(replies, asked)
        assert np.allclose(found, belief - np.logaddexp.reduce(belief), atol=1e-9)

    def test_fewer_orders_leave_less_of_it_than_one(self):
        liking = np.array([3.0, 0, 0, 0])
        spread = [
            np.ptp(averaged([liking for _ in asked], asked))
            for asked in (orders(4, 1), orders(4, 2), orders(4, 4))
        ]
        assert spread[0] > spread[1] > spread[2] == pytest.approx(0)


class TestLetters:
    def test_an_option_has_the_probability_of_its_letter(self):
        found = np.exp(from_letters(letters([0.5, 0.3, 0.15, 0.05]), 4))
        assert np.allclose(found, [0.5, 0.3, 0.15, 0.05])

    @pytest.mark.parametrize(
        "token", ["A", " A", "a", "(A)", "A.", "**A**", "\u2581A", "\u0120A", "A\n"]
    )
    def test_a_letter_is_known_in_every_dress(self, token):
        found = from_letters(letters([0.8, 0.2], [token, "B"]), 2)
        assert np.allclose(np.exp(found), [0.8, 0.2])

    def test_the_ways_to_write_one_letter_add_up(self):
        found = np.exp(from_letters(letters([0.4, 0.4, 0.2], ["A", " A", "B"]), 2))
        assert np.allclose(found, [0.8, 0.2])

    def test_a_letter_that_is_not_listed_is_at_most_the_rarest_that_is(self):
        found = np.exp(from_letters(letters([0.9, 0.06], ["A", "C"]), 4))
        assert found[1] == found[3] < found[2] + 1e-12
        assert found.sum() == pytest.approx(1)
        assert (found > 0).all()

    @pytest.mark.parametrize(
        "reply",
        [
            letters([0.9, 0.05], ["The", "A"]),
            letters([0.9, 0.1], ["E", "F"]),
            {},
            {"choices": []},
            {"choices": [{"logprobs": None}]},
            {"choices": [{"logprobs": {"content": [{"top_logprobs": [{"token": "A"}]}]}}]},
            {
                "choices": [
                    {"logprobs": {"content": [{"top_logprobs": [{"token": "A", "logprob": "x"}]}]}}
                ]
            },
            letters([0.9], ["A"]) | {"choices": "A"},
            *(
                listing(value)
                for value in (math.nan, math.inf, 0.7, 10**400, -(10**400), True, None, "x")
            ),
            letters([0.9, 0.9], ["A", "B"]),
        ],
        ids=str,
    )
    def test_another_answer_is_none(self, reply):
        assert from_letters(reply, 4) is None

    def test_probabilities_of_half_precision_need_not_add_up_to_one(self):
        assert from_letters(letters([0.52, 0.51], "AB"), 2) is not None


class TestJson:
    @pytest.mark.parametrize(
        "text",
        [
            '{"calm": 50, "glad": 30, "sad": 20}',
            '{"calm": 0.5, "glad": 0.3, "sad": 0.2, "cross": 0}',
            'Sure!\n```json\n{"Calm": "50%", "GLAD": "30", "sad ": 20, "other": 7}\n```\nHope it helps {}',
        ],
    )
    def test_shares_and_percents_are_read_wherever_the_object_stands(self, text):
        found = np.exp(from_json(written(text), OPTIONS))
        assert np.allclose(found, [0.5, 0.3, 0.2, 0], atol=2e-3)
        assert (found > 0).all()

    @pytest.mark.parametrize(
        "text",
        ["", "calm", "{", '{"calm": }', "[1, 2]", '{"calm": -1}', '{"calm": NaN}', '{"calm": 1e999}',
         '{"calm": true}',
         '{"calm": 1%s}' % ("0" * 400), '{"calm": "1e999"}', '{"calmness": 90, "sad": 10}',
         '{"joy": 1}', '{"calm": 0}', '{"calm": null}', '{"calm": {"a": 1}}', "{" * 5000],
        ids=lambda text: text[:20] or "nothing",
    )  # fmt: skip
    def test_anything_else_is_none(self, text):
        assert from_json(written(text), OPTIONS) is None

    def test_shares_of_any_size_are_shares(self):
        for size in ("1e308", "1e-300", "7"):
            said = ", ".join(f'"{option}": {size}' for option in OPTIONS)
            assert np.allclose(np.exp(from_json(written(f"{{{said}}}"), OPTIONS)), 0.25)

    @pytest.mark.parametrize(
        ("options", "named"),
        [
            (("ge\u0302ne\u0301", "calm"), "g\u00ean\u00e9"),
            (("glad\nor so", "calm"), "glad or so"),
            (("Joy", "joy"), "Joy"),
            (('\U0001f600 "quoted"', "calm"), '\U0001f600 "quoted"'),
            (("\u0641\u0631\u062d", "\u60b2\u3057\u3044"), "\u0641\u0631\u062d"),
        ],
        ids=["composed", "lines", "case", "emoji", "scripts"],
    )
    def test_an_option_is_known_by_the_name_under_which_it_was_listed(self, options, named):
        shares = {named: 90, question.one_line(options[1]): 10}
        found = np.exp(from_json(written(json.dumps(shares)), options))
        assert np.allclose(found, [0.9, 0.1], atol=2e-3)

    @given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=8),
                        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
                            ["choices", "message", "content", "logprobs", "top_logprobs", "token"]),
                            inner, max_size=3), max_leaves=8))  # fmt: skip
    @settings(max_examples=60)
    def test_no_reply_breaks_the_reader(self, reply):
        reply = reply if isinstance(reply, dict) else {"choices": [reply]}
        for found in (from_json(reply, OPTIONS), from_letters(reply, 4)):
            assert found is None or np.isfinite(found).all()


class TestTasks:
    def test_a_class_has_one_question_and_log_probabilities_as_scores(self):
        task = Task(kind="classification", classes=OPTIONS)
        (asked,) = questions_of("emotion", task)
        assert asked.options == OPTIONS
        belief = np.log([0.1, 0.2, 0.3, 0.4])
        assert question.scores_of([belief], task) == belief.tolist()

    def test_labels_that_may_all_hold_have_a_question_each(self):
        task = Task(kind="multilabel", classes=("joy", "fear"))
        asked = questions_of("emotions", task, "Is there {label} in it?")
        assert [each.text for each in asked] == ["Is there joy in it?", "Is there fear in it?"]
        scores = question.scores_of([np.log([0.75, 0.25]), np.log([0.5, 0.5])], task)
        assert scores == pytest.approx([math.log(3), 0])

    def test_a_number_is_the_mean_of_steps_along_its_range(self):
        task = Task(kind="regression", range=(-3.0, 3.0))
        (asked,) = questions_of("sentiment", task)
        assert asked.options == ("-3", "-2", "-1", "0", "1", "2", "3")
        sure = np.log(np.array([0, 0, 0, 0, 0, 0.5, 0.5]) + 1e-12)
        assert question.scores_of([sure], task) == pytest.approx([2.5])

    def test_a_number_without_a_range_is_refused(self):
        with pytest.raises(ConfigError, match="without a range"):
            questions_of("arousal", Task(kind="regression"))


class TestBody:
    PARTS = ({"type": "text", "text": "What is said in the clip: well"},)

    def test_words_alone_travel_as_a_string_and_pictures_as_parts(self):
        asked = Question(text="Which?", options=OPTIONS)
        plain = question.body("m", asked, [1, 0, 2, 3], self.PARTS, "letters")
        assert "A) glad\nB) calm\nC) sad" in plain["messages"][1]["content"]
        assert plain["max_tokens"] == 1
        picture = {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,AA=="}}
        seen = question.body("m", asked, [1, 0, 2, 3], [picture, *self.PARTS], "letters")
        assert [part["type"] for part in seen["messages"][1]["content"]] == [
            "image_url",
            "text",
            "text",
        ]
        assert words_of(seen) == words_of(plain)

    @pytest.mark.parametrize("how", ["letters", "json"])
    def test_a_label_with_line_breaks_is_listed_on_one_line(self, how):
        asked = Question(text="Which?", options=("glad\nB) calm", "sad"))
        listed = words_of(question.body("m", asked, [0, 1], self.PARTS, how)).split("Which?\n")[1]
        assert listed.count("\n") == 2

    def test_it_is_plain_json(self):
        asked = Question(text="Which?", options=OPTIONS)
        body = question.body("m", asked, [0, 1, 2, 3], self.PARTS, "json")
        assert "logprobs" not in body
        assert json.loads(json.dumps(body)) == body
