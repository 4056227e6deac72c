"""A judge of the toy bundle, for processes that start with nothing registered."""

import os
import time

import toy_corpus

from jobs.serving.judge import open_judge


class Deadly:
    """A judge that some words kill."""

    def __init__(self, judge):
        self.judge = judge

    def answer(self, order, report):
        if order.text == "die":
            os._exit(7)
        if order.text == "sleep":
            time.sleep(600)
        return self.judge.answer(order, report)


def start(bundle):
    toy_corpus.register()
    return Deadly(open_judge(bundle, "", None, 60.0))
