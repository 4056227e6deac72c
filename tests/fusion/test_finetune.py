"""finetune: what is trained, how fast, what is kept of it, and that workers share it as one would do it."""

import copy
import importlib.util
import os
import socket
from dataclasses import replace
from pathlib import Path

import cloudpickle
import pytest
import torch
from torch import multiprocessing, nn

from encoders.branch import last
from fusion.batch import Batch, Mixing, Steps
from fusion.nets import NETS, is_convex, net_axis, net_class, net_config
from fusion.predictor import Card, build, from_bytes, to_bytes
from fusion.training.convex import fit_convex
from fusion.training.course import workers_of
from fusion.training.head_first import begins_solved, solve_head
from fusion.training.loop import Course, Group, RowSplit, fit
from fusion.training.optimiser import optimiser_of
from fusion.training.recipe import Recipe


def beside(name: str):
    """A module of this folder."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


made_up = beside("training_data")
SMALL = beside("small_nets").SMALL

TRAIN, VALID = torch.arange(45), torch.arange(45, 60)
RECIPE = Recipe(epochs=4, patience=0, batch_size=16, lr=5e-3)
SOLVED = {"head": "linear", "layers": "all", "freeze": 1, "dropout": 0.0}
HEAD = {"head_options.hidden": 8, "head_options.dropout": 0.0, "encoder_rate": 0.5}


class Block(nn.Module):
    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.inner, self.drop = nn.Linear(dim, dim), nn.Dropout(dropout)

    def forward(self, x):
        return x + self.drop(torch.tanh(self.inner(x)))


class SmallBranch(nn.Module):
    """A stem, three blocks, and a part that nothing depends on."""

    dim, depth, has_levels = 6, 3, True

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.stem, self.pooler = nn.Linear(6, 6), nn.Linear(6, 6)
        self.layers = nn.ModuleList(Block(6, dropout) for _ in range(self.depth))
        self.fixed = nn.Parameter(torch.ones(6), requires_grad=False)

    @property
    def blocks(self):
        return list(self.layers)

    def level(self, parameter: str) -> int | None:
        if parameter.startswith("pooler"):
            return None
        return 1 + int(parameter.split(".")[1]) if parameter.startswith("layers") else 0

    def forward(self, values, mask, join=last):
        levels = [self.stem(values.masked_fill(~mask.unsqueeze(-1), 0)) * self.fixed]
        for block in self.layers:
            levels.append(block(levels[-1]))
        return join(levels), mask


def branch(dropout: float = 0.0) -> SmallBranch:
    torch.manual_seed(11)
    return SmallBranch(dropout)


def net(dropout: float = 0.0, **options):
    torch.manual_seed(5)
    config = net_config("finetune", {**HEAD, **options})
    outputs = {"emotion": 3, "arousal": 1}
    kind = net_class("finetune")
    return kind(config, dims=made_up.DIMS, outputs=outputs, branches={"text": branch(dropout)})


def batch(count: int = 8) -> Batch:
    return made_up.MadeUp().batch(torch.arange(count))


def trained_levels(net) -> set[int]:
    inside = "branches.text."
    names = [n for n, p in net.named_parameters() if p.requires_grad and n.startswith(inside)]
    return {net.branches["text"].level(name.removeprefix(inside)) for name in names}


class TestWhatIsTrained:
    @pytest.mark.parametrize(
        ("freeze", "levels"), [(0, {0, 1, 2, 3}), (1, {2, 3}), (2, {3}), (3, set())]
    )
    def test_frozen_blocks_take_what_lies_under_them_along(self, freeze, levels):
        assert trained_levels(net(freeze=freeze)) == levels
        assert trained_levels(net(**{"freeze.text": freeze})) == levels

    @pytest.mark.parametrize("lora", [0, 2])
    @pytest.mark.parametrize("freeze", [0, 2])
    def test_a_gradient_reaches_all_that_is_trained_and_nothing_else(self, freeze, lora):
        model = net(freeze=freeze, lora=lora)
        said = model.train()(batch())
        torch.stack([v.square().sum() for v in said.logits.values()]).sum().backward()
        for parameter in model.parameters():
            assert (parameter.grad is not None) == parameter.requires_grad

    def test_an_update_of_low_rank_changes_nothing_before_it_is_trained(self):
        plain, low = net().eval(), net(lora=2).eval()
        for task, said in plain(batch()).logits.items():
            assert torch.equal(said, low(batch()).logits[task])
        names = {n.rpartition(".")[2] for n in low.state_dict() if n not in low.given}
        assert {"up", "down"} <= names

    def test_an_updated_layer_says_what_its_updated_weights_say(self):
        low = net(lora=2).branches["text"].layers[0].inner
        torch.nn.init.normal_(low.up)
        x = torch.randn(5, 6)
        torch.testing.assert_close(low(x), nn.functional.linear(x, low.weight, low.bias))

    @pytest.mark.parametrize("freeze", [0, 3])
    def test_shares_of_the_levels_are_trained_with_frozen_blocks_and_without(self, freeze):
        model = net(freeze=freeze, layers="sum").train()
        said = model(batch())
        torch.stack([v.square().sum() for v in said.logits.values()]).sum().backward()
        assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
        assert model.levels["text"].shares.grad.abs().min() > 0
        assert model.rate_of("levels.text.shares") == 1.0

    @pytest.mark.parametrize(
        ("freeze", "said"), [(4, "expected 0 to its 3 blocks, came 4"), (-1, "expected 0 or more")]
    )
    def test_blocks_that_are_not_there_cannot_be_frozen(self, freeze, said):
        with pytest.raises(ValueError, match=said):
            net(freeze=freeze)

    @pytest.mark.parametrize("name", ["tex", "audio", "speech"])
    def test_blocks_of_an_input_without_an_encoder_cannot_be_frozen(self, name):
        with pytest.raises(ValueError, match=f"freeze.{name}: expected an input whose encoder is"):
            net(**{f"freeze.{name}": 1})

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"lora": -1}, "lora: expected 0 or more"),
            ({"lora": 2, "freeze": 3}, "lora=2: freeze leaves no block to update; freeze fewer"),
            ({"lora": 7}, "lora of text: expected a rank of at most its 6 features, came 7"),
            ({"layer_decay": 1.1}, "layer_decay in"),
            ({"layer_decay": 0.0}, "layer_decay in"),
            ({"encoder_rate": 0.0}, "expected encoder_rate > 0"),
            ({"encoder_rate": -1.0}, "expected encoder_rate > 0"),
        ],
        ids=str,
    )
    def test_rates_and_ranks_that_are_none_are_refused(self, options, said):
        with pytest.raises(ValueError, match=said):
            net(**options)

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"head": "sdt"}, "expected a net of clips on top: bottleneck, concat_mlp, ef_lstm,"),
            ({"head": "finetune"}, "expected a net of clips on top: bottleneck, concat_mlp,"),
            ({"head": "gatd"}, "there is no net 'gatd'; did you mean 'gated'"),
            ({"head_options.hiden": 8}, "concat_mlp has no option 'hiden'; did you mean 'hidden'"),
            ({"head_options.hidden": "big"}, "concat_mlp hidden: expected a whole number"),
        ],
        ids=str,
    )
    def test_a_head_that_cannot_be_is_refused_before_anything_is_read(self, options, said):
        with pytest.raises(ValueError, match=said):
            net_config("finetune", options)

    def test_tokens_and_sound_take_no_noise(self):
        with pytest.raises(ValueError, match="cannot be given noise"):
            train(recipe=Recipe(epochs=1, feature_noise=0.1))


class TestMixing:
    @pytest.mark.parametrize("head", [SOLVED, HEAD], ids=["linear", "concat_mlp"])
    def test_what_the_encoders_make_is_mixed_and_not_what_they_are_given(self, head):
        kind, outputs = net_class("finetune"), {"emotion": 3}
        config = net_config("finetune", {**head, "dropout": 0.0})
        branches = {"text": branch()}
        model = kind(config, dims=made_up.DIMS, outputs=outputs, branches=branches).eval()
        given = batch()
        partner = torch.arange(len(given)).roll(1)
        seen = {}

        def keep(module, arguments):
            seen["text"] = arguments[0].inputs["text"]

        model.head.register_forward_pre_hook(keep)
        model(given)
        plain = seen["text"]
        with torch.enable_grad():
            model(replace(given, mixing=Mixing(0.7, partner)))
        values = plain.values * plain.mask.unsqueeze(-1)
        torch.testing.assert_close(seen["text"].values, 0.7 * values + 0.3 * values[partner])
        assert (seen["text"].mask == plain.mask | plain.mask[partner]).all()

    def test_training_with_mixup_gives_other_weights_and_the_same_ones_again(self):
        first, again, plain = (
            train(recipe=Recipe(epochs=2, mixup=mixup)).predictor.state_dict()
            for mixup in (0.4, 0.4, 0.0)
        )
        trained = [name for name in first if "inner" in name]
        assert trained
        assert all((first[name] == again[name]).all() for name in first)
        assert any((first[name] != plain[name]).any() for name in trained)


HEADS = [
    name
    for name in NETS
    if name not in ("finetune", "lstm") and net_axis(name) == "clip" and not is_convex(name)
]


class TestHeads:
    @pytest.mark.parametrize("head", HEADS)
    def test_every_clip_net_of_several_inputs_takes_two_encoders_and_a_feature(self, head):
        options = {f"head_options.{name}": value for name, value in SMALL[head].items()}
        config = net_config("finetune", {"head": head, "freeze.a": 1, "freeze.b": 2, **options})
        dims = {"a": 6, "b": 6, "c": 4}
        branches = {"a": branch(), "b": branch()}
        model = net_class("finetune")(config, dims=dims, outputs={"y": 3}, branches=branches)
        made = batch().inputs["text"]
        inputs = {"a": made, "b": made, "c": Steps(made.values[..., :4], made.mask)}
        target = torch.arange(len(made.mask)) % 3
        given = Batch(inputs=inputs, index=torch.arange(len(target)), targets={"y": target})
        output = model.train()(given)
        total = output.logits["y"].square().sum() + sum(output.losses.values())
        total.backward()
        for name, frozen in (("a", 1), ("b", 2)):
            grads = [block.inner.weight.grad for block in model.branches[name].layers]
            assert [grad is None for grad in grads] == [at < frozen for at in range(3)]
            assert all(grad.abs().sum() > 0 for grad in grads[frozen:])


class Pooled:
    """The made-up clips as a frozen encoder would give them: one scaled vector a clip and input."""

    def __init__(self) -> None:
        self.plain, everything = made_up.MadeUp(), torch.arange(60)
        self.lengths = torch.ones(60, dtype=torch.int64)
        inputs, model = self.plain.batch(everything).inputs, branch()
        states, mask = model(inputs["text"].values, inputs["text"].mask, lambda x: torch.cat(x, -1))
        rows = [row[kept] for row, kept in zip(states.detach(), mask, strict=True)]
        text = torch.stack([torch.cat([x.mean(0), x.std(0, correction=0)]) for x in rows])
        text = (text - text[TRAIN].mean(0)) / text[TRAIN].std(0, correction=0)
        self.vectors = {"audio": inputs["audio"].mean(), "text": text}

    def batch(self, rows):
        inputs = {
            name: Steps(values[rows].unsqueeze(1), torch.ones(len(rows), 1, dtype=torch.bool))
            for name, values in self.vectors.items()
        }
        return Batch(inputs=inputs, clip_id=rows, index=rows)

    def targets(self, rows):
        return self.plain.targets(rows)


class TestALinearHead:
    def test_begins_as_the_linear_net_on_the_states_of_the_frozen_encoder(self):
        predictor = build(card(**SOLVED, **{"head_options.path": 1}), {"text": branch()})
        solve(predictor, Group())
        pooled = Pooled()
        dims = {name: vector.shape[1] for name, vector in pooled.vectors.items()}
        linear = build(Card(net="linear", config={"path": 1}, tasks=made_up.TASKS, dims=dims))
        fit_convex(
            linear,
            pooled,
            tasks=made_up.TASKS,
            train=TRAIN,
            groups=TRAIN % 9,
            recipe=RECIPE,
        )
        rows = torch.arange(60)
        expected = linear.eval()(pooled.batch(rows)).logits
        found = predictor.eval()(made_up.MadeUp().batch(rows)).logits
        for task, values in expected.items():
            torch.testing.assert_close(found[task], values, atol=2e-3, rtol=2e-3)

    def test_is_trained_on_with_the_encoder_and_learns_more(self):
        start = build(card(**SOLVED), {"text": branch()})
        solve(start, Group())
        fitted = train(**SOLVED)
        losses = [record["train/loss"] for record in fitted.history]
        assert losses[-1] < losses[0]
        before, after = (net.net.state_dict() for net in (start, fitted.predictor))
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        assert any("branches.text.layers.2" in name for name in moved)
        assert not any(name.startswith(("branches.text.layers.0", "vectors")) for name in moved)

    def test_of_clips_without_an_input_reads_the_mean_of_those_that_have_it(self):
        predictor = build(card(**SOLVED), {"text": branch()})
        solve(predictor, Group())
        given = batch(4)
        hidden = Steps(given.inputs["text"].values, torch.zeros_like(given.inputs["text"].mask))
        said = predictor.eval()(replace(given, inputs={**given.inputs, "text": hidden})).logits
        assert all(values.isfinite().all() for values in said.values())


class TestRates:
    def test_fall_from_the_head_over_the_last_block_to_the_first(self):
        model = net(layer_decay=0.1, encoder_rate=0.5)
        recipe = Recipe(lr=1.0, lr_factors={"branches": 2.0})
        found = {g["lr"]: g["params"] for g in optimiser_of(model, recipe).param_groups}
        expected = {1.0, 1.0 * 2 * 0.5}
        expected |= {2 * 0.5 * 0.1**below for below in (1, 2, 3)}
        assert sorted(found) == pytest.approx(sorted(expected))
        first = model.branches["text"].layers[0].inner.weight
        (rate,) = [lr for lr, some in found.items() if any(p is first for p in some)]
        assert rate == pytest.approx(2 * 0.5 * 0.1**2)

    def test_the_rate_that_is_shown_is_that_of_the_head(self):
        assert optimiser_of(net(), Recipe(lr=0.5)).param_groups[0]["lr"] == 0.5


class TestRecomputation:
    @pytest.mark.parametrize("lora", [0, 2])
    def test_gives_the_same_gradients_with_dropout_and_keeps_less(self, lora):
        found, kept = [], []
        for recompute in (False, True):
            model = net(dropout=0.3, recompute=recompute, lora=lora).train()
            torch.manual_seed(3)
            size = []

            def packed(tensor, size=size):
                size.append(tensor.numel())
                return tensor

            with torch.autograd.graph.saved_tensors_hooks(packed, lambda tensor: tensor):
                said = model(batch())
            torch.stack([v.square().sum() for v in said.logits.values()]).sum().backward()
            found.append([p.grad for p in model.parameters() if p.requires_grad])
            kept.append(sum(size))
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other)
        assert kept[1] < kept[0]

    def test_a_copy_recomputes_its_own_blocks(self):
        model = net(recompute=True)
        for other in (copy.deepcopy(model), cloudpickle.loads(cloudpickle.dumps(model))):
            other.branches["text"].layers[0].inner.weight.grad = None
            other(batch()).logits["arousal"].sum().backward()
            assert other.branches["text"].layers[0].inner.weight.grad is not None
            assert model.branches["text"].layers[0].inner.weight.grad is None


class TestEvaluation:
    BOUNDS = ("STEPS_AT_ONCE", "VALUES_AT_ONCE", "STATES_AT_ONCE")

    @pytest.mark.parametrize("bound", BOUNDS)
    @pytest.mark.parametrize("options", [{"layers": "sum"}, {"head": "gated"}, {"layers": "all"}])
    def test_rows_read_a_few_at_a_time_say_the_same(self, monkeypatch, bound, options):
        model = net(**options).eval()
        with torch.no_grad():
            whole = model(batch(20)).logits
            monkeypatch.setattr(f"fusion.nets.finetune.{bound}", 60)
            parts = model(batch(20)).logits
        for task in whole:
            torch.testing.assert_close(whole[task], parts[task])

    @pytest.mark.parametrize("bound", BOUNDS)
    def test_no_state_of_more_rows_than_the_bound_allows_is_held(self, monkeypatch, bound):
        model, held = net(layers="all").eval(), []
        head = model.head.forward
        monkeypatch.setattr(f"fusion.nets.finetune.{bound}", 240)
        monkeypatch.setattr(
            model.head, "forward", lambda b: held.append(b.inputs["text"].values.shape) or head(b)
        )
        with torch.no_grad():
            model(batch(20))
        width = {"STEPS_AT_ONCE": 1, "VALUES_AT_ONCE": 6, "STATES_AT_ONCE": 24}[bound]
        assert sum(rows for rows, _, _ in held) == 20
        assert all(rows * time * width <= 240 or rows == 1 for rows, time, _ in held)

    def test_encoders_without_dropout_say_the_same_in_training(self):
        quiet, loud = (net(dropout=0.5, dropout_inside=inside).train() for inside in (False, True))
        same, other = ([m(batch()).logits["arousal"] for _ in range(2)] for m in (quiet, loud))
        assert torch.equal(*same)
        assert not torch.equal(*other)


def card(**options) -> Card:
    config = {**HEAD, **options}
    if config.get("head") == "linear":
        config = {name: v for name, v in config.items() if name not in HEAD}
    return Card(net="finetune", config=config, tasks=made_up.TASKS, dims=made_up.DIMS)


def train(recipe=RECIPE, *, group=None, resume=None, on_epoch=None, last_epoch=None, **options):
    torch.manual_seed(7)
    predictor = build(card(**options), {"text": branch()})
    if begins_solved(predictor) and resume is None:
        solve(predictor, group or Group())
    return fit(
        predictor,
        made_up.MadeUp(),
        RowSplit(train=TRAIN, valid=VALID),
        recipe,
        tasks=made_up.TASKS,
        group=group,
        course=Course(seed=3, resume=resume, on_epoch=on_epoch, last_epoch=last_epoch),
    )


def solve(predictor, group) -> None:
    solve_head(
        predictor,
        made_up.MadeUp(),
        tasks=made_up.TASKS,
        train=TRAIN,
        groups=TRAIN % 9,
        recipe=RECIPE,
        group=group,
    )


WAYS = [
    {},
    {"freeze": 2},
    {"freeze": 3},
    {"lora": 2},
    {"lora": 1, "freeze": 1},
    {"recompute": True},
    {"layers": "sum", "freeze": 1},
    SOLVED,
]


@pytest.mark.parametrize("options", WAYS, ids=str)
class TestWhatIsKept:
    def test_a_net_comes_back_from_what_changed_and_the_pretrained_weights(self, options):
        fitted = train(**options).predictor
        content = to_bytes(fitted)
        again = from_bytes(content, card(**options), {"text": branch()})
        said, once_more = fitted(batch()).logits, again(batch()).logits
        assert all(torch.equal(said[task], once_more[task]) for task in said)
        untouched = branch().state_dict()
        given = {n.removeprefix("net.branches.text.") for n in fitted.given}
        inside = fitted.net.branches["text"].state_dict()
        assert all(
            torch.equal(inside[name], untouched[name.replace(".base.", ".")]) for name in given
        )

    def test_training_that_goes_on_ends_as_if_undisturbed(self, options):
        states = []

        def kill(record, state):
            states.append(state())
            return record["epoch"] == 2

        train(on_epoch=kill, **options)
        ours, whole = train(resume=states[-1], **options), train(**options)
        assert to_bytes(ours.predictor) == to_bytes(whole.predictor)


def test_weights_of_another_part_of_the_encoder_are_refused():
    content = to_bytes(train(freeze=2).predictor)
    with pytest.raises(ValueError, match="do not fit the card of net 'finetune'"):
        from_bytes(content, card(), {"text": branch()})


def _worker(rank: int, port: int, folder: str, options: dict) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), OMP_NUM_THREADS="1")
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    fitted = train(group=Group.joined(), **options)
    torch.save(fitted.predictor.state_dict(), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def by_two(folder, options):
    """The weights that two workers end with."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    workers = [
        context.Process(target=_worker, args=(rank, port, str(folder), options))
        for rank in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    ours, theirs = (torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    return ours


def difference(ours, theirs) -> float:
    return max(float((ours[name] - value).abs().max()) for name, value in theirs.items())


@pytest.mark.parametrize(
    "options", [{}, {"freeze": 1, "lora": 2, "recompute": True}, SOLVED], ids=str
)
def test_two_workers_equal_one_with_the_same_rows_a_step(options, tmp_path):
    ours = by_two(tmp_path, options)
    for name, value in train(**options).predictor.state_dict().items():
        torch.testing.assert_close(ours[name], value, atol=2e-5, rtol=1e-4)


class TestGoingOnWithOtherWorkers:
    """Each worker draws for its own rows: another number of them gives other draws, and nothing else."""

    @pytest.mark.parametrize("dropout", [0.0, 0.3])
    def test_ends_as_if_undisturbed_only_where_nothing_is_drawn(self, dropout, tmp_path):
        options, states = {"head_options.dropout": dropout}, []

        def kill(record, state):
            states.append(state())
            return record["epoch"] == 2

        train(on_epoch=kill, **options)
        assert workers_of(states[-1]) == 1
        going_on = {"resume": states[-1], **options}
        apart = difference(by_two(tmp_path, going_on), train(**options).predictor.state_dict())
        assert (apart < 2e-5) == (dropout == 0)
