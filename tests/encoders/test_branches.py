"""A model inside a net says what its encoder says: from published inputs, with gradients, level by level."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cluster.errors import ConfigError
from encoders import ENCODERS
from encoders.branch import last
from encoders.registry import describe, find, load, load_branch
from fusion.batch import Batch, Steps
from fusion.nets import net_class, net_config
from fusion.nets._adapters import adapt
from fusion.nets._levels import Levels

TEXT = (
    "bart_large",
    "bert_base",
    "hub_embedding",
    "hub_text",
    pytest.param("minilm", marks=pytest.mark.weights),
    "roberta_base",
    "xlm_roberta_base",
)
SOUND = (
    "clap",
    "emotion2vec",
    "hub_audio",
    "hub_whisper",
    "hubert_base",
    "sensevoice",
    "vggish",
    "w2v_bert",
    "wav2vec2_base",
    "wav2vec2_dimensional",
    "wavlm_base",
    "whisper_base",
    "whisper_small",
    pytest.param("whisper_tiny_en", marks=pytest.mark.weights),
)
PICTURES = ("clip_vit", "dinov2_base", "hub_video", "timesformer", "videomae", "vit_base")
FACES = ("emotieffnet", "emotieffnet_va")
ALL = [*TEXT, *SOUND, *PICTURES, *FACES]
LAST_ALONE = ("clap", "emotieffnet", "emotieffnet_va", "vggish")
"""Their blocks give states of unlike shapes."""

LOUD = [name for name in SOUND if "loud" in find(getattr(name, "values", [name])[0]).options]
"""Those of 20 ms steps, which may leave out quiet ones."""

LEVELLED = [name for name in ALL if name not in LAST_ALONE]


def published(name):
    """Options with which an encoder publishes its inputs; the tiny vision models read 32 px."""
    side = ",px=32" if name in PICTURES else ",px=48" if name in FACES else ""
    return "publish=inputs" + side


@pytest.fixture(scope="session", params=ALL)
def pair(request, case_of, clips_for):
    """States, published inputs, branch and type of stored inputs of one encoder."""
    plain, weights = case_of(request.param)
    descriptor, _ = case_of(request.param, published(request.param))
    branch = load_branch(descriptor, weights).eval()
    states, inputs = (load(d, weights).encode(clips_for(d)) for d in (plain, descriptor))
    return states, inputs, branch, descriptor.dtype


@pytest.fixture(scope="session", params=LEVELLED)
def every_level(request, case_of, clips_for):
    """States of all levels, published inputs and branch of one encoder."""
    plain, weights = case_of(request.param, "layers=all")
    descriptor, _ = case_of(request.param, published(request.param))
    branch = load_branch(descriptor, weights).eval()
    states, inputs = (load(d, weights).encode(clips_for(d)) for d in (plain, descriptor))
    return states, inputs, branch


def rising(clip):
    """From silence to the level that it has."""
    waves = {
        rate: wave * np.linspace(0, 1, len(wave), dtype=np.float32)
        for rate, wave in clip.waveforms.items()
    }
    return replace(clip, waveforms=waves)


def batch(inputs, more=0):
    """Values and mask of some clips, rubbish behind each."""
    longest = max(len(each.values) for each in inputs) + more
    values = torch.full((len(inputs), longest, inputs[0].values.shape[1]), torch.nan)
    mask = torch.zeros(len(inputs), longest, dtype=torch.bool)
    for row, each in enumerate(inputs):
        values[row, : len(each.values)] = torch.from_numpy(each.values)
        mask[row, : len(each.values)] = torch.from_numpy(each.valid)
    return values, mask


@pytest.mark.parametrize("name", ALL)
def test_what_is_published_has_the_columns_that_its_table_has(name, case_of, clips_for):
    descriptor, weights = case_of(name, published(name))
    for clip in load(descriptor, weights).encode(clips_for(descriptor)):
        assert {column: each.shape[1] for column, each in clip.side.items()} == descriptor.side


class TestABranch:
    def test_gives_the_states_that_the_encoder_gives(self, pair):
        states, inputs, branch, _ = pair
        found, mask = branch(*batch(inputs))
        for row, each in enumerate(states):
            kept = found[row][mask[row]].detach().numpy()
            np.testing.assert_allclose(kept, each.values[each.valid], atol=1e-4, rtol=1e-3)

    @pytest.mark.parametrize("name", LOUD)
    def test_leaves_out_the_quiet_steps_that_the_encoder_leaves_out(self, name, case_of, clips_for):
        plain, weights = case_of(name, "loud=20")
        descriptor, _ = case_of(name, "publish=inputs,loud=20")
        clips = [rising(clip) for clip in clips_for(plain)]
        states, inputs = (load(d, weights).encode(clips) for d in (plain, descriptor))
        _, mask = load_branch(descriptor, weights).eval()(*batch(inputs))
        heard = [row[: len(each.valid)].numpy() for row, each in zip(mask, states, strict=True)]
        assert all((row == each.valid).all() for row, each in zip(heard, states, strict=True))
        assert any(0 < row.sum() < len(row) for row in heard)

    def test_joins_the_levels_that_the_encoder_gives_by_their_shares(self, every_level):
        levels, inputs, branch = every_level
        join = Levels("sum", branch.depth)
        torch.nn.init.normal_(join.shares)
        found, mask = branch(*batch(inputs), join)
        shares = join.shares.softmax(0)
        for row, each in enumerate(levels):
            expected = 0.0
            for at, level in enumerate(np.split(each.values[each.valid], len(shares), axis=1)):
                spread = np.sqrt(level.var(1, keepdims=True) + 1e-5)
                expected += shares[at].item() * (level - level.mean(1, keepdims=True)) / spread
            kept = found[row][mask[row]].detach().numpy()
            np.testing.assert_allclose(kept, expected, atol=2e-3, rtol=1e-3)

    def test_gives_all_levels_side_by_side_as_the_encoder_does(self, every_level):
        levels, inputs, branch = every_level
        found, mask = branch(*batch(inputs), Levels("all", branch.depth))
        for row, each in enumerate(levels):
            kept = found[row][mask[row]].detach().numpy()
            np.testing.assert_allclose(kept, each.values[each.valid], atol=1e-4, rtol=1e-3)

    def test_gives_nearly_the_same_of_what_is_stored(self, pair):
        """Sound is stored as float16; token ids and pictures are stored as they are."""
        states, inputs, branch, kept = pair
        rounded = [replace(x, values=x.values.astype(kept).astype(np.float32)) for x in inputs]
        found, mask = branch(*batch(rounded))
        for row, each in enumerate(states):
            difference = found[row][mask[row]].detach().numpy() - each.values[each.valid]
            assert np.linalg.norm(difference) < 5e-3 * np.linalg.norm(each.values[each.valid])

    def test_reads_nothing_behind_a_clip_and_nothing_of_its_neighbours(self, pair):
        _, inputs, branch, _ = pair
        alone, _ = branch(*batch(inputs[:1]))
        among, mask = branch(*batch(inputs, more=3))
        torch.testing.assert_close(among[0][mask[0]], alone[0], atol=2e-5, rtol=1e-4)

    @pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
    def test_stays_finite_with_its_gradients_where_a_clip_is_hidden(self, pair, half):
        _, inputs, branch, _ = pair
        values, mask = batch(inputs)
        mask[1] = False
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            states, said = branch(values, mask)
        assert states.isfinite().all()
        assert not said[1].any()
        states[said].float().square().sum().backward()
        grads = [p.grad for p in branch.parameters() if p.grad is not None]
        assert grads
        assert all(grad.isfinite().all() for grad in grads)
        branch.zero_grad()

    def test_keeps_its_statistics_as_they_came_while_it_is_trained(self, pair):
        _, inputs, branch, _ = pair
        before = {name: each.clone() for name, each in branch.named_buffers()}
        branch.train()(*batch(inputs))
        branch.eval()
        for name, each in branch.named_buffers():
            torch.testing.assert_close(each, before[name], rtol=0, atol=0, equal_nan=True)

    def test_has_every_parameter_at_a_level_and_all_blocks_among_them(self, pair):
        _, inputs, branch, _ = pair
        values, mask = batch(inputs)
        states, said = branch(values, mask)
        states[said].square().sum().backward()
        levels = {name: branch.level(name) for name, _ in branch.named_parameters()}
        assert set(levels.values()) - {None} == set(range(branch.depth + 1))
        assert len(branch.blocks) == branch.depth
        for name, parameter in branch.named_parameters():
            if levels[name] is None:
                assert parameter.grad is None
        branch.zero_grad()


@pytest.mark.parametrize("kind", ["", "kind=map,"])
@pytest.mark.parametrize("name", ALL)
def test_its_descriptor_knows_its_shape_before_it_is_loaded(name, kind, case_of):
    if kind and name != "vggish":
        pytest.skip("it has one kind")
    descriptor, weights = case_of(name, kind + published(name))
    branch, inputs = load_branch(descriptor, weights), descriptor.inputs
    stages = inputs.stages.get(str(descriptor.options.get("kind", "")))
    assert branch.dim == descriptor.layer_dim
    assert branch.depth == (stages or descriptor.num_layers - 1)
    assert branch.has_levels == (stages is None)
    linear = [adapt(block, 1) > 0 for block in branch.blocks]
    assert linear == [at >= inputs.convolutions for at in range(branch.depth)]


class TestNeighbours:
    def test_are_read_and_their_states_dropped(self, case_of, clips_for):
        plain, weights = case_of("bert_base", "context=both")
        descriptor, _ = case_of("bert_base", "context=both,publish=inputs")
        clips = [
            replace(clip, context=(("what a day",), ("come in", "sit down")))
            for clip in clips_for(plain)
        ]
        states = load(plain, weights).encode(clips)
        inputs = load(descriptor, weights).encode(clips)
        found, mask = load_branch(descriptor, weights).eval()(*batch(inputs))
        for row, each in enumerate(states):
            kept = found[row][mask[row]].detach().numpy()
            np.testing.assert_allclose(kept, each.values[each.valid], atol=2e-5)


class TestWhatIsPublished:
    def test_changes_the_fingerprint_and_the_default_does_not(self):
        states, inputs = describe("minilm"), describe("minilm:publish=inputs")
        assert describe("minilm:publish=states") == states
        assert "publish" not in states.options
        assert states.fingerprint != inputs.fingerprint
        assert (inputs.dim, inputs.dtype) == (2, "float32")

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("minilm:publish=tokens", "publish is one of states, inputs"),
            ("egemaps:publish=inputs", "egemaps has no inputs that a net could train on"),
            ("minilm:publish=inputs,pool=mean", "leave out pool"),
            ("minilm:publish=inputs,pool=mean,layers=all", "leave out layers and pool"),
        ],
    )
    def test_is_refused_where_it_makes_no_sense(self, text, said):
        with pytest.raises(ConfigError, match=said):
            describe(text)

    @pytest.mark.parametrize("name", [n for n in ENCODERS if find(n).inputs is None])
    def test_is_refused_with_the_encoders_of_the_modality_that_can(self, name):
        with pytest.raises(ConfigError, match="type one of these") as told:
            describe(f"{name}:weights=file:///x,publish=inputs")
        named = str(told.value).rpartition(": ")[2].split(", ")
        assert named
        for other in named:
            assert find(other).inputs
            assert find(other).modality == find(name).modality


SUMMED = {"layers": "sum", "recompute": True}


class TestInANet:
    """The real classes under `finetune`: their layers take updates, and are run again for gradients."""

    @pytest.mark.parametrize(
        "options", [{"lora": 2}, {"freeze": 1}, {"recompute": True}, SUMMED], ids=str
    )
    @pytest.mark.parametrize(
        "name",
        [
            "bart_large",
            "clap",
            "emotieffnet",
            "emotion2vec",
            "hub_audio",
            "hub_text",
            "hub_video",
            "sensevoice",
            "videomae",
            "w2v_bert",
            "wavlm_base",
            "whisper_base",
        ],
    )
    def test_says_at_first_what_the_plain_one_says_and_is_trained(
        self, case_of, clips_for, name, options
    ):
        if name in LAST_ALONE and options is SUMMED:
            pytest.skip("its last states alone are read")
        if name in FACES and "lora" in options:
            pytest.skip("nothing in its blocks is linear")
        descriptor, weights = case_of(name, published(name))
        inputs = load(descriptor, weights).encode(clips_for(descriptor))
        given = Batch(inputs={"x": Steps(*batch(inputs))})
        summed = {"layers": options.get("layers", "last")}
        plain, changed = (net(descriptor, weights, more).train() for more in (summed, options))
        said, same = plain(given).logits["y"], changed(given).logits["y"]
        torch.testing.assert_close(said, same, atol=1e-5, rtol=1e-4)
        same.square().sum().backward()
        for parameter in changed.parameters():
            assert (parameter.grad is not None) == parameter.requires_grad
        if "recompute" in options:
            said.square().sum().backward()
            for one, other in zip(plain.parameters(), changed.parameters(), strict=True):
                torch.testing.assert_close(one.grad, other.grad, atol=1e-4, rtol=1e-3)

    @pytest.mark.parametrize("layers", ["sum", "all"])
    @pytest.mark.parametrize("name", LAST_ALONE)
    def test_of_unlike_states_is_read_by_its_last_ones_alone(self, case_of, name, layers):
        with pytest.raises(
            ValueError, match=rf"layers={layers}: .* reads x .*expected layers=last"
        ):
            net(*case_of(name, published(name)), {"layers": layers})

    def test_without_a_linear_layer_takes_no_low_rank_update(self, case_of):
        with pytest.raises(ValueError, match=r"lora=2: .* reads x has no linear layer"):
            net(*case_of("emotieffnet", published("emotieffnet")), {"lora": 2})

    @pytest.mark.parametrize("seconds", [9.9, 10.6, 11.2, 21.0])
    def test_clap_is_read_in_the_windows_that_the_encoder_cuts(self, case_of, clips_for, seconds):
        plain, weights = case_of("clap")
        descriptor, _ = case_of("clap", "publish=inputs")
        clips = clips_for(plain, (seconds, 1.1))
        states, inputs = (load(each, weights).encode(clips) for each in (plain, descriptor))
        found, mask = load_branch(descriptor, weights).eval()(*batch(inputs))
        for row, each in enumerate(states):
            np.testing.assert_array_equal(inputs[row].step_end_s, each.step_end_s)
            kept = found[row][mask[row]].detach().numpy()
            np.testing.assert_allclose(kept, each.values, atol=1e-4, rtol=1e-3)

    def test_clap_of_another_front_end_is_refused_before_anything_is_published(
        self, case_of, tmp_path
    ):
        from transformers import ClapFeatureExtractor

        descriptor, _ = case_of("clap", "publish=inputs")
        ClapFeatureExtractor(truncation="fusion").save_pretrained(tmp_path)
        with pytest.raises(ConfigError, match=r"read 4 x 1001 x 64 .* leave publish=inputs out"):
            load(descriptor, {"model": tmp_path})

    def test_vggish_gives_its_map_as_the_encoder_does(self, case_of, clips_for):
        plain, weights = case_of("vggish", "kind=map")
        descriptor, _ = case_of("vggish", "kind=map,publish=inputs")
        branch = load_branch(descriptor, weights).eval()
        states, inputs = (load(d, weights).encode(clips_for(d)) for d in (plain, descriptor))
        found, mask = branch(*batch(inputs))
        for row, each in enumerate(states):
            kept = found[row][mask[row]].detach().numpy()
            np.testing.assert_allclose(kept, each.values, atol=1e-4, rtol=1e-3)
        assert {branch.level(name) for name, _ in branch.named_parameters()} == {None, *range(6)}
        with pytest.raises(ValueError, match=r"lora=2: .* reads x has no linear layer"):
            net(descriptor, weights, {"lora": 2})


def net(descriptor, weights, options):
    torch.manual_seed(0)
    fixed = {"head_options.hidden": 8, "head_options.dropout": 0.0, "dropout_inside": False}
    config = net_config("finetune", {**fixed, **options})
    branches = {"x": load_branch(descriptor, weights)}
    dims = {"x": descriptor.dim}
    return net_class("finetune")(config, dims=dims, outputs={"y": 3}, branches=branches)


@pytest.mark.parametrize("pooling", ["first", "last", "mean"])
@pytest.mark.parametrize("layers", ["last", "all"])
def test_an_embedding_model_makes_its_vector_inside_a_net_as_it_does_outside(
    case_of, clips_for, pooling, layers
):
    plain, weights = case_of("hub_embedding", f"pooling={pooling},layers={layers}")
    descriptor, _ = case_of("hub_embedding", f"pooling={pooling},publish=inputs")
    branch = load_branch(descriptor, weights).eval()
    states, inputs = (load(d, weights).encode(clips_for(d)) for d in (plain, descriptor))
    join = Levels("all", branch.depth) if layers == "all" else last
    found, said = branch(*batch(inputs), join)
    assert found.shape[1] == 1
    for row, each in enumerate(states):
        assert bool(said[row, 0]) == bool(each.valid[0])
        kept = found[row][said[row]].detach().numpy()
        np.testing.assert_allclose(kept, each.values[each.valid], atol=1e-4, rtol=1e-3)
