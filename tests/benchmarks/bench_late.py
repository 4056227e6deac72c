"""Candidates a second of the inner solver, against plain loops.

40 members x 5000 rows x 8 classes, made from a seed: 30 members that know something and 10 that do not.

1. Random weightings under log loss and accuracy: the batched objective against a Python loop over NumPy.
2. Weightings on straight ways between random ones under accuracy, as `weighted` tries them: all points of a
   way at once against the same loop over the same points.
3. Greedy selection of 50: our rule against AutoGluon's algorithm, written plainly (running mean, renormalised
   rows, one call of scikit-learn's log_loss or accuracy_score a candidate, as AutoGluon's scorers do), and
   against the same loop with the metric in three lines of NumPy. Losses are of the rows fitted on and of as
   many new ones.

Exits 1 where log loss misses 20 times in 1, accuracy in 2, AutoGluon's greedy selection by either in 3, or
where a greedy loss is worse than AutoGluon's.
"""

import sys
import time
import warnings

import numpy as np
import torch
from sklearn.metrics import accuracy_score, log_loss

from fusion.late import rule_class
from fusion.late._candidates import CandidateLosses
from fusion.late._margins import ClassMargins
from fusion.late.members import Members
from fusion.late.weighted import POINTS

MEMBERS, ROWS, CLASSES, SIZE = 40, 5000, 8, 50
WANTED = 20.0


def made(seed):
    """Probabilities [member, row, class] and targets [row]."""
    rng = np.random.default_rng(seed)
    y = rng.integers(CLASSES, size=ROWS)
    strength = np.linspace(0.2, 1.6, MEMBERS)
    strength[:10] = 0.0
    strength = np.random.default_rng(0).permutation(strength)
    common = rng.normal(size=(ROWS, CLASSES))
    z = strength[:, None, None] * np.eye(CLASSES)[y] + 0.5 * common
    z = z + rng.normal(size=(MEMBERS, ROWS, CLASSES))
    z = 2 * z
    p = np.exp(z - z.max(2, keepdims=True))
    return p / p.sum(2, keepdims=True), y


def timed(work, *, least_s=1.0):
    """Seconds a call, repeated for at least so long; the first call is not counted."""
    result = work()
    begin, calls = time.perf_counter(), 0
    while time.perf_counter() - begin < least_s or calls == 0:
        result = work()
        calls += 1
    return (time.perf_counter() - begin) / calls, result


def plain_loop(p, y, weightings, metric):
    """What a person would write in NumPy."""
    losses = []
    for weights in weightings:
        fused = np.tensordot(weights, p, 1)
        fused = fused / fused.sum(1, keepdims=True)
        losses.append(judge(fused, y, metric))
    return np.array(losses)


def judge(fused, y, metric):
    """The metric in NumPy."""
    if metric == "nll":
        return -np.log(np.clip(fused[np.arange(len(y)), y], 1e-15, 1)).mean()
    return 1 - (fused.argmax(1) == y).mean()


def library_judge(fused, y, metric):
    """The metric as AutoGluon's scorers call it."""
    if metric == "nll":
        return log_loss(y, fused, labels=np.arange(CLASSES))
    return 1 - accuracy_score(y, fused.argmax(1))


def autogluon_greedy(p, y, metric, scorer, size=SIZE):
    """Greedy selection with replacement, one candidate after the other."""
    order, trajectory, used = [], [], set()
    random, rounded = np.random.RandomState(0), False
    for step in range(size):
        mean = np.zeros_like(p[0])
        for chosen in order:
            mean += p[chosen]
        mean = mean / (step + 1)
        scores = np.zeros(len(p))
        for place, candidate in enumerate(p):
            trial = mean + candidate / (step + 1)
            trial = trial / trial.sum(1)[:, None]
            scores[place] = scorer(trial, y, metric)
            if rounded:
                scores[place] = scores[place].round(6)
        best = np.flatnonzero(np.isclose(scores, scores.min(), rtol=1e-12, atol=0))
        known = [b for b in best if b in used]
        pick = random.choice(known if len(best) > 1 and known else best)
        score = scores[pick]
        if step == 0 and abs(score) > 1e-4:
            rounded, score = True, score.round(6)
        order.append(int(pick))
        used.add(int(pick))
        trajectory.append(score)
    order = order[: int(np.argmin(trajectory)) + 1]
    return np.bincount(order, minlength=len(p)) / len(order)


def weightings_figures(p, y):
    """Candidates a second of random weightings, ours over plain."""
    members = Members.from_probabilities(
        [f"m{i}" for i in range(MEMBERS)], "classification", torch.from_numpy(p)
    )
    weightings = np.random.default_rng(1).dirichlet(np.ones(MEMBERS), size=512)
    ratios = {}
    for metric in ("nll", "accuracy"):
        objective = CandidateLosses(
            members=members.cleaned(),
            target=torch.from_numpy(y),
            weights=torch.ones(ROWS, dtype=torch.float64),
            metric=metric,
        )
        tensor = torch.from_numpy(weightings)
        ours_s, ours = timed(lambda objective=objective, tensor=tensor: objective.screen(tensor))
        few = weightings[:24]
        plain_s, plain = timed(lambda metric=metric, few=few: plain_loop(p, y, few, metric))
        np.testing.assert_allclose(ours[:24], plain, rtol=1e-5)
        np.testing.assert_allclose(objective.losses(tensor[:24]), plain, rtol=1e-9)
        ours_rate, plain_rate = len(weightings) / ours_s, len(few) / plain_s
        ratios[metric] = ours_rate / plain_rate
        print(
            f"weightings by {metric}: {ours_rate:,.0f} candidates/s, plain NumPy loop "
            f"{plain_rate:,.0f}/s, {ratios[metric]:.1f} times"
        )
    return ratios


def line_figures(p, y):
    """Candidates a second on the ways from one weighting to others, ours over plain."""
    members = Members.from_probabilities(
        [f"m{i}" for i in range(MEMBERS)], "classification", torch.from_numpy(p)
    )
    objective = CandidateLosses(
        members=members.cleaned(),
        target=torch.from_numpy(y),
        weights=torch.ones(ROWS, dtype=torch.float64),
        metric="accuracy",
    )
    rivals = ClassMargins(objective)
    draws = torch.from_numpy(np.random.default_rng(2).dirichlet(np.ones(MEMBERS), size=33))
    start, ends = draws[0], draws[1:]
    ours_s, ours = timed(lambda: rivals.along(start, ends, POINTS))
    share = torch.linspace(0, 1, POINTS, dtype=torch.float64).unsqueeze(1)
    few = ((1 - share) * start + share * ends[0]).numpy()[::5]
    plain_s, plain = timed(lambda: plain_loop(p, y, few, "accuracy"))
    np.testing.assert_allclose(ours[0, ::5], plain, atol=1e-9)
    ours_rate, plain_rate = ours.numel() / ours_s, len(few) / plain_s
    print(
        f"weightings on lines by accuracy: {ours_rate:,.0f} candidates/s, plain NumPy loop "
        f"{plain_rate:,.0f}/s, {ours_rate / plain_rate:.1f} times"
    )
    return ours_rate / plain_rate


def greedy_figures(p, y, new_p, new_y):
    """Candidates a second of greedy selection, and the losses of what was found."""
    names = [f"m{i}" for i in range(MEMBERS)]
    members = Members.from_probabilities(names, "classification", torch.from_numpy(p))
    caruana = rule_class("caruana")
    fine = True
    for metric in ("nll", "accuracy"):
        config = caruana.Config(size=SIZE, metric=metric)
        target = torch.from_numpy(y)
        ours_s, rule = timed(
            lambda config=config, target=target: caruana.fit(config, members, target)
        )
        ours = np.array(list(rule.member_weights().values()))
        found = {"ours": ours}
        rate = MEMBERS * SIZE / ours_s
        print(f"greedy by {metric}: {rate:,.0f} candidates/s ({ours_s * 1e3:.0f} ms)")
        for name, scorer in (
            ("AutoGluon's algorithm", library_judge),
            ("with NumPy metrics", judge),
        ):
            begin = time.perf_counter()
            found[name] = autogluon_greedy(p, y, metric, scorer)
            theirs = MEMBERS * SIZE / (time.perf_counter() - begin)
            print(f"  {name}: {theirs:,.0f} candidates/s, ours {rate / theirs:.1f} times")
            if name == "AutoGluon's algorithm":
                fine &= rate / theirs >= WANTED
        if metric == "nll":
            log_pool = rule_class("log_pool")
            begin = time.perf_counter()
            pool = log_pool.fit(log_pool.Config(), members, target)
            pool_s = time.perf_counter() - begin
        for where, (q, t) in {"fitted rows": (p, y), "new rows": (new_p, new_y)}.items():
            losses = {
                name: judge(np.tensordot(weights, q, 1), t, metric)
                for name, weights in found.items()
            }
            fine &= losses["ours"] <= losses["AutoGluon's algorithm"] + 1e-6
            line = ", ".join(f"{name} {loss:.6f}" for name, loss in losses.items())
            if metric == "nll":
                fused = pool.combine(
                    Members.from_probabilities(names, "classification", torch.from_numpy(q))
                )
                line += f", log_pool {judge(fused.exp().numpy(), t, metric):.6f} ({pool_s:.2f} s)"
            print(f"  {metric} on {where}: {line}")
    return fine


def main():
    """Run all parts."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    p, y = made(0)
    ratios = weightings_figures(p, y)
    fine = line_figures(p, y) >= WANTED
    fine &= greedy_figures(p, y, *made(1))
    return 0 if fine and ratios["nll"] >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
