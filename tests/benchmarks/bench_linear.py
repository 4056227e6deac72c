"""The linear net beside scikit-learn: 1440 rows x 3840 features, 8 classes, 7 penalties, on one core.

1. Choosing: all 7 penalties on 5 folds of people, and the solution with the best of them. scikit-learn's
   LogisticRegression does the same in a loop, each fold from strong to weak with a warm start.
2. A whole run: 5 folds of people are judged, and each chooses by 5 folds of the others.
3. Exactness: probabilities of the rows of one fold, from the others, beside scikit-learn's tight solution.

Seconds are of CPU, of one thread. Exits 1 where choosing takes over 10 s or probabilities differ by 1e-4.

`--data FILE` adds a real set, an npz of `emotion`, `actor`, `fold` and the named arrays of features:
accuracy and log loss on its folds.

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_linear.py --data au_mfcc.npz --arrays au_mean mfcc
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from fusion import batch
from fusion.predictor import Card, Predictor, build
from fusion.scaling import Scaler
from fusion.tasks import Task
from fusion.training.convex import fit_convex, folds_of
from fusion.training.recipe import Recipe

ROWS, FEATURES, CLASSES, PEOPLE = 1440, 3840, 8, 24
LIMIT_S, CLOSE = 10.0, 1e-4


class Table:
    """Rows of one step an input, with a class each."""

    def __init__(self, inputs: dict[str, Tensor], emotion: Tensor) -> None:
        self.inputs, self.emotion = inputs, emotion
        self.lengths = torch.ones(len(emotion), dtype=torch.int64)
        self.dims = {name: values.shape[1] for name, values in inputs.items()}

    def batch(self, rows: Tensor) -> batch.Batch:
        """Rows by index."""
        mask = torch.ones(len(rows), 1, dtype=torch.bool)
        inputs = {n: batch.Sequence(v[rows, None], mask) for n, v in self.inputs.items()}
        return batch.Batch(inputs=inputs, clip_id=rows)

    def targets(self, rows: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Classes, all of them known."""
        return {"y": self.emotion[rows]}, {"y": torch.ones(len(rows), dtype=torch.bool)}


def made() -> tuple[Table, Tensor]:
    """Features of 60 causes under noise, as layers of an encoder have them, and who speaks."""
    draws = torch.Generator().manual_seed(0)
    causes = torch.randn(ROWS, 60, generator=draws)
    noise = torch.randn(ROWS, CLASSES, generator=draws)
    emotion = (2 * causes[:, :CLASSES] + noise).argmax(1)
    features = causes @ torch.randn(60, FEATURES, generator=draws)
    features += 3 * torch.randn(ROWS, FEATURES, generator=draws)
    return Table({"layers": features}, emotion), torch.arange(ROWS) % PEOPLE


def fitted(table: Table, rows: Tensor, who: Tensor, **options: Any) -> tuple[Predictor, float]:
    """The net of some rows, and the penalty that it chose."""
    classes = tuple(str(number) for number in range(CLASSES))
    tasks = {"y": Task(kind="classification", classes=classes)}
    net = build(Card(net="linear", config=options, tasks=tasks, dims=table.dims))
    scaler = Scaler.fitted([table.batch(rows)], table.dims)
    net.scaler.load_state_dict(scaler.state_dict())
    found = fit_convex(net, table, tasks=tasks, train=rows, groups=who[rows], recipe=Recipe())
    return found.predictor, found.history[0]["y/penalty"]


@torch.no_grad()
def said(net: Predictor, table: Table, rows: Tensor) -> np.ndarray:
    """Probabilities of some rows."""
    return net(table.batch(rows)).logits["y"].double().softmax(1).numpy()


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of CPU."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def scaled(net: Predictor, table: Table, rows: Tensor) -> np.ndarray:
    """What the weights are multiplied with."""
    inputs = net.scaler(table.batch(rows)).inputs.values()
    return torch.cat([sequence.values[:, 0] for sequence in inputs], 1).double().numpy()


def loop(x: np.ndarray, y: np.ndarray, fold: np.ndarray, path: np.ndarray) -> LogisticRegression:
    """scikit-learn's: choose a penalty by folds, then fit all rows with it."""
    losses = np.zeros(len(path))
    for held in np.unique(fold):
        model = LogisticRegression(warm_start=True, max_iter=1000)
        for at, penalty in enumerate(path):
            model.set_params(C=1 / (penalty * x.var(0).sum() * len(x)))
            model.fit(x[fold != held], y[fold != held])
            log_p = model.predict_log_proba(x[fold == held])
            losses[at] -= log_p[np.arange(len(log_p)), y[fold == held]].sum()
    best = path[losses.argmin()]
    return LogisticRegression(C=1 / (best * x.var(0).sum() * len(x)), max_iter=1000).fit(x, y)


def judged(table: Table, fold: Tensor, who: Tensor, **options: Any) -> tuple[float, float]:
    """Accuracy and log loss on folds, each of which chooses by the others."""
    log_p = torch.zeros(len(fold), CLASSES, dtype=torch.float64)
    for held in fold.unique().tolist():
        net, _ = fitted(table, (fold != held).nonzero().squeeze(1), who, **options)
        rows = (fold == held).nonzero().squeeze(1)
        log_p[rows] = torch.from_numpy(said(net, table, rows)).log()
    right = (log_p.argmax(1) == table.emotion).double().mean()
    return float(right), float(-log_p.gather(1, table.emotion.unsqueeze(1)).mean())


def real(path: str, names: Sequence[str]) -> None:
    """Lines of a real set: every array by itself, then all with one penalty, and with one each."""
    content = np.load(path, allow_pickle=False)
    emotion, who, fold = (
        torch.from_numpy(content[name].astype(np.int64)) for name in ("emotion", "actor", "fold")
    )
    arrays = {name: torch.from_numpy(content[name]).float() for name in names}
    sets = [(name, {name: arrays[name]}, "shared") for name in names]
    if len(names) > 1:
        sets += [(" + ".join(names), arrays, penalty) for penalty in ("shared", "each")]
    print("\n| features | penalty | accuracy | NLL | seconds |\n|---|---|--:|--:|--:|")
    for title, inputs, penalty in sets:
        table = Table(inputs, emotion)
        seconds, (right, loss) = timed(lambda t=table, p=penalty: judged(t, fold, who, penalty=p))
        print(f"| {title} | {penalty} | {100 * right:.1f} | {loss:.3f} | {seconds:.1f} |")


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data")
    parser.add_argument("--arrays", nargs="+", default=["au_mean"])
    parser.add_argument("--no-sklearn", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    table, who = made()
    rows = torch.arange(ROWS)
    fitted(table, rows[:50], who)  # imports
    seconds, (net, penalty) = timed(lambda: fitted(table, rows, who))
    print(f"choosing of 7 penalties by 5 folds: {seconds:.1f} s, penalty {penalty:.1e}")
    fold = folds_of(who, 5)
    whole, (right, loss) = timed(lambda: judged(table, fold, who))
    print(f"5 folds, each choosing by 5: {whole:.1f} s, accuracy {right:.3f}, NLL {loss:.3f}")
    worst = 0.0
    if not args.no_sklearn:
        config = net.net.config
        path = np.logspace(np.log10(config.strongest), np.log10(config.weakest), config.path)
        x, y = scaled(net, table, rows), table.emotion.numpy()
        theirs, _ = timed(lambda: loop(x, y, fold.numpy(), path))
        print(f"scikit-learn, choosing: {theirs:.1f} s, {theirs / seconds:.1f} times as long")
        seen, held = (fold != 0).nonzero().squeeze(1), (fold == 0).nonzero().squeeze(1)
        net, penalty = fitted(table, seen, who)
        x = scaled(net, table, seen)
        strength = penalty * x.var(0).sum() * len(x)
        tight = LogisticRegression(C=1 / strength, tol=1e-8, max_iter=100_000)
        tight.fit(x, y[seen.numpy()])
        apart = np.abs(said(net, table, held) - tight.predict_proba(scaled(net, table, held)))
        worst = float(apart.max())
        print(
            f"probabilities of held-out rows: {worst:.1e} apart at most, {apart.mean():.1e} on average"
        )
    if args.data:
        real(args.data, args.arrays)
    return int(seconds > LIMIT_S or worst > CLOSE)


if __name__ == "__main__":
    sys.exit(main())
