"""Tiny random models of the real classes, saved as a model hub would hold them."""

import json

import numpy as np
import torch
from tiny_checkpoints import emotieffnet, emotieffnet_va, sensevoice
from tokenizers import ByteLevelBPETokenizer, SentencePieceBPETokenizer, Tokenizer, models
from tokenizers import pre_tokenizers as pre

DIM, DEPTH = 32, 2
CORPUS = [
    "so funny what a day the door is open come in and sit down",
    "I can not believe that you really went there without telling me",
]
_BLOCKS = {
    "hidden_size": DIM,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}


def _save(model, folder):
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)


def _tokenizer(folder, backend, names, length):
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=length, **names
    ).save_pretrained(folder)


def _byte_level(folder, kind):
    """vocab.json and merges.txt, read by the model's own tokenizer class."""
    trained = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator(CORPUS, vocab_size=400, special_tokens=special)
    trained.save_model(str(folder))
    kind.from_pretrained(folder, model_max_length=62).save_pretrained(folder)
    return trained.get_vocab_size()


def bert(folder):
    from transformers import BertConfig, BertModel

    words = sorted({word for line in CORPUS for word in line.lower().split()})
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, "##s", "fun", "##ny"]
    backend = Tokenizer(models.WordPiece({t: i for i, t in enumerate(tokens)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre.BertPreTokenizer()
    names = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    _tokenizer(folder, backend, names, 62)
    config = BertConfig(vocab_size=len(tokens), max_position_embeddings=64, **_BLOCKS)
    _save(BertModel(config), folder)


def roberta(folder):
    from transformers import RobertaConfig, RobertaModel, RobertaTokenizer

    size = _byte_level(folder, RobertaTokenizer)
    config = RobertaConfig(vocab_size=size, max_position_embeddings=66, pad_token_id=1, **_BLOCKS)
    _save(RobertaModel(config), folder)


def qwen3(folder):
    """A causal model whose tokenizer puts an end of text behind, and pads before."""
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3Model

    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(CORPUS, vocab_size=300, special_tokens=["<|endoftext|>"])
    backend = Tokenizer.from_str(trained.to_str())
    backend.post_processor = TemplateProcessing(
        single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", 0)]
    )
    names = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "padding_side": "left"}
    PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=62, **names).save_pretrained(
        folder
    )
    config = Qwen3Config(
        vocab_size=backend.get_vocab_size(), num_key_value_heads=2, head_dim=8,
        max_position_embeddings=64, **_BLOCKS,
    )  # fmt: skip
    _save(Qwen3Model(config), folder)


def bart(folder):
    from transformers import BartConfig, BartModel, RobertaTokenizer

    size = _byte_level(folder, RobertaTokenizer)
    halves = {
        f"{half}_{name}": value
        for half in ("encoder", "decoder")
        for name, value in (("layers", DEPTH), ("attention_heads", 4), ("ffn_dim", 48))
    }
    config = BartConfig(
        vocab_size=size, d_model=DIM, max_position_embeddings=64, pad_token_id=1, **halves
    )
    _save(BartModel(config), folder)


def xlm_roberta(folder):
    from transformers import XLMRobertaConfig, XLMRobertaModel

    trained = SentencePieceBPETokenizer(unk_token="<unk>")
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator(CORPUS, vocab_size=300, special_tokens=special)
    names = {"cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    _tokenizer(folder, trained._tokenizer, names, 62)
    size = trained.get_vocab_size()
    config = XLMRobertaConfig(
        vocab_size=size, max_position_embeddings=66, pad_token_id=1, **_BLOCKS
    )
    _save(XLMRobertaModel(config), folder)


def _speech(folder, model_class, config_class, *, normalise, **extra):
    config = config_class(
        **_BLOCKS,
        conv_dim=[16] * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        **extra,
    )
    _save(model_class(config), folder)
    facts = {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "do_normalize": normalise,
        "sampling_rate": 16000,
        "return_attention_mask": extra.get("feat_extract_norm") == "layer",
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(facts))


def wav2vec2(folder):
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    _speech(folder, Wav2Vec2Model, Wav2Vec2Config, normalise=True)


def wav2vec2_layer_norm(folder):
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    _speech(
        folder,
        Wav2Vec2Model,
        Wav2Vec2Config,
        normalise=True,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
    )


def wav2vec2_conformer(folder):
    """Its convolutions end in batch norm."""
    from transformers import Wav2Vec2ConformerConfig, Wav2Vec2ConformerModel

    kind = {"position_embeddings_type": "rotary", "conv_depthwise_kernel_size": 7}
    _speech(folder, Wav2Vec2ConformerModel, Wav2Vec2ConformerConfig, normalise=True, **kind)


def wav2vec2_dimensional(folder):
    """The published form: the model, and a head of three outputs on its mean state."""
    from safetensors.torch import load_file, save_file

    wav2vec2_layer_norm(folder)
    states = {f"wav2vec2.{k}": v for k, v in load_file(folder / "model.safetensors").items()}
    random = torch.Generator().manual_seed(1)
    for name, outs in (("dense", DIM), ("out_proj", 3)):
        states[f"classifier.{name}.weight"] = torch.randn(outs, DIM, generator=random) / 4
        states[f"classifier.{name}.bias"] = torch.randn(outs, generator=random)
    save_file(states, folder / "model.safetensors", {"format": "pt"})


def emotion2vec(folder):
    """As FunASR publishes it: a torch file with the names of fairseq, and objects that are no tensors."""
    from argparse import Namespace

    from encoders.audio._emotion2vec_net import Emotion2vecNet, Sizes

    torch.manual_seed(0)
    sizes = Sizes(
        dim=DIM, heads=4, hidden=48, channels=16, context_blocks=1, blocks=DEPTH - 1,
        position_layers=2, position_kernel=5, position_groups=4, extra_tokens=3,
    )  # fmt: skip
    net = Emotion2vecNet(sizes)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    states = {
        name if name.startswith("proj.") else f"d2v_model.{name}": value
        for name, value in net.state_dict().items()
    }
    states["d2v_model.modality_encoders.AUDIO.decoder.proj.bias"] = torch.zeros(DIM)
    torch.save({"cfg": Namespace(lr=[1e-4]), "model": states}, folder / "model.pt")


def w2v_bert(folder):
    from transformers import SeamlessM4TFeatureExtractor, Wav2Vec2BertConfig, Wav2Vec2BertModel

    config = Wav2Vec2BertConfig(
        **_BLOCKS, feature_projection_input_dim=160, conv_depthwise_kernel_size=7
    )
    _save(Wav2Vec2BertModel(config), folder)
    SeamlessM4TFeatureExtractor(padding_value=0.0).save_pretrained(folder)


def hubert(folder):
    from transformers import HubertConfig, HubertModel

    _speech(folder, HubertModel, HubertConfig, normalise=True)


def wavlm(folder):
    from transformers import WavLMConfig, WavLMModel

    _speech(folder, WavLMModel, WavLMConfig, normalise=False)


def whisper(folder):
    from transformers import WhisperConfig, WhisperModel

    halves = {
        f"{half}_{name}": value
        for half in ("encoder", "decoder")
        for name, value in (("layers", DEPTH), ("attention_heads", 4), ("ffn_dim", 48))
    }
    ids = {"decoder_start_token_id": 1, "bos_token_id": 2, "eos_token_id": 2, "pad_token_id": 2}
    config = WhisperConfig(vocab_size=50, d_model=DIM, **halves, **ids)
    _save(WhisperModel(config), folder)


def whisper_with_words(folder):
    """A multilingual Whisper with the tokenizer and the facts that decoding needs."""
    from transformers import WhisperConfig, WhisperModel

    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(CORPUS, vocab_size=300)
    trained.save(str(folder / "tokenizer.json"))
    size = trained.get_vocab_size()
    names = ("end", "start", "en", "de", "transcribe", "no_timestamps")
    ids = {name: size + index for index, name in enumerate(names)}
    halves = {
        f"{half}_{name}": value
        for half in ("encoder", "decoder")
        for name, value in (("layers", DEPTH), ("attention_heads", 4), ("ffn_dim", 48))
    }
    config = WhisperConfig(
        vocab_size=size + len(names),
        d_model=DIM,
        decoder_start_token_id=ids["start"],
        bos_token_id=ids["end"],
        eos_token_id=ids["end"],
        pad_token_id=ids["end"],
        **halves,
    )
    _save(WhisperModel(config), folder)
    facts = {
        "decoder_start_token_id": ids["start"],
        "eos_token_id": ids["end"],
        "no_timestamps_token_id": ids["no_timestamps"],
        "lang_to_id": {"<|en|>": ids["en"], "<|de|>": ids["de"]},
        "task_to_id": {"transcribe": ids["transcribe"]},
        "begin_suppress_tokens": [ids["end"]],
        "alignment_heads": [[0, 1], [1, 2]],
    }
    (folder / "generation_config.json").write_text(json.dumps(facts))


def clap(folder):
    from transformers import ClapAudioConfig, ClapAudioModelWithProjection, ClapFeatureExtractor

    config = ClapAudioConfig(
        patch_embeds_hidden_size=8,
        hidden_size=64,
        depths=[1, 1, 1, 1],
        num_attention_heads=[2, 2, 2, 2],
        projection_dim=DIM,
        num_hidden_layers=4,
    )
    _save(ClapAudioModelWithProjection(config), folder)
    ClapFeatureExtractor(truncation="rand_trunc").save_pretrained(folder)


def vggish(folder):
    """Full widths, since the wrapper has no others; the dense layers are mostly zeros."""
    from safetensors.torch import save_file

    from encoders.audio._vggish_net import VggishNet

    torch.manual_seed(0)
    save_file(VggishNet().state_dict(), folder / "vggish.safetensors")


def _pictures(folder):
    facts = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.25], "size": 32}
    (folder / "preprocessor_config.json").write_text(json.dumps(facts))


def clip_vit(folder):
    from transformers import CLIPVisionConfig, CLIPVisionModel

    _save(CLIPVisionModel(CLIPVisionConfig(image_size=32, patch_size=8, **_BLOCKS)), folder)
    _pictures(folder)


def vit(folder):
    from transformers import ViTConfig, ViTModel

    _save(ViTModel(ViTConfig(image_size=32, patch_size=8, **_BLOCKS)), folder)
    _pictures(folder)


def dinov2(folder):
    from transformers import Dinov2Config, Dinov2Model

    blocks = {k: v for k, v in _BLOCKS.items() if k != "intermediate_size"}
    _save(Dinov2Model(Dinov2Config(image_size=32, patch_size=8, **blocks)), folder)
    _pictures(folder)


def timesformer(folder):
    from transformers import TimesformerConfig, TimesformerModel

    config = TimesformerConfig(image_size=32, patch_size=8, num_frames=8, **_BLOCKS)
    _save(TimesformerModel(config), folder)
    _pictures(folder)


def videomae(folder):
    from transformers import VideoMAEConfig, VideoMAEModel

    config = VideoMAEConfig(image_size=32, patch_size=8, num_frames=16, **_BLOCKS)
    _save(VideoMAEModel(config), folder)
    _pictures(folder)


def siglip(folder):
    from transformers import SiglipVisionConfig, SiglipVisionModel

    _save(SiglipVisionModel(SiglipVisionConfig(image_size=32, patch_size=8, **_BLOCKS)), folder)
    _pictures(folder)


def siglip_with_sentences(folder):
    """Both halves in one folder, as the hub holds them."""
    from transformers import SiglipConfig, SiglipModel

    half = {**_BLOCKS, "vocab_size": 50, "max_position_embeddings": 8, "projection_size": DIM}
    config = SiglipConfig(
        text_config=half, vision_config={"image_size": 32, "patch_size": 8, **_BLOCKS}
    )
    _save(SiglipModel(config), folder)
    _pictures(folder)


def siglip2_naflex(folder):
    from transformers import Siglip2VisionConfig, Siglip2VisionModel

    _save(Siglip2VisionModel(Siglip2VisionConfig(num_patches=16, patch_size=8, **_BLOCKS)), folder)
    _pictures(folder)


def dinov3(folder):
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    config = DINOv3ViTConfig(image_size=32, patch_size=8, num_register_tokens=4, **_BLOCKS)
    _save(DINOv3ViTModel(config), folder)
    _pictures(folder)


def vjepa2(folder):
    from transformers import VJEPA2Config, VJEPA2Model

    config = VJEPA2Config(
        crop_size=32, patch_size=8, frames_per_clip=8, hidden_size=DIM, num_hidden_layers=DEPTH,
        num_attention_heads=4, pred_hidden_size=24, pred_num_hidden_layers=1,
        pred_num_attention_heads=2, mlp_ratio=1.5,
    )  # fmt: skip
    _save(VJEPA2Model(config), folder)
    _pictures(folder)
    (folder / "preprocessor_config.json").rename(folder / "video_preprocessor_config.json")


def data2vec_audio(folder):
    from transformers import Data2VecAudioConfig, Data2VecAudioModel

    _speech(folder, Data2VecAudioModel, Data2VecAudioConfig, normalise=True)


_SIZE = {"dim": DIM, "depth": DEPTH}
BUILDERS = {
    "bart_large": bart,
    "bert_base": bert,
    "clap": clap,
    "clip_vit": clip_vit,
    "dinov2_base": dinov2,
    "emotieffnet": emotieffnet,
    "emotieffnet_va": emotieffnet_va,
    "emotion2vec": emotion2vec,
    "hub_audio": wav2vec2_layer_norm,
    "hub_embedding": qwen3,
    "hub_text": roberta,
    "hub_video": siglip,
    "hub_whisper": whisper,
    "hubert_base": hubert,
    "roberta_base": roberta,
    "sensevoice": sensevoice,
    "timesformer": timesformer,
    "vggish": vggish,
    "videomae": videomae,
    "vit_base": vit,
    "w2v_bert": w2v_bert,
    "wav2vec2_base": wav2vec2,
    "wav2vec2_dimensional": wav2vec2_dimensional,
    "wavlm_base": wavlm,
    "whisper_base": whisper,
    "whisper_small": whisper,
    "xlm_roberta_base": xlm_roberta,
}
SIZES = dict.fromkeys(BUILDERS, _SIZE) | {"clap": {"dim": DIM}, "vggish": {}}
SIZES |= {f"emotieffnet{end}": {"dim": DIM, "crop": "none", "px": 48} for end in ("", "_va")}


def direct(descriptor, folder, clip):
    """What the library says of one clip, called as its documentation does; None where none exists."""
    modality = descriptor.spec.modality
    if descriptor.name == "hub_embedding":
        return _direct_text(folder, clip)[-1:]
    if modality == "text":
        return _direct_text(folder, clip)
    if modality == "video":
        return _direct_video(folder, clip.frames[descriptor.frame_policy].pixels)
    return _direct_audio(folder, clip.waveforms[descriptor.spec.rate_hz])


@torch.inference_mode()
def _direct_text(folder, clip):
    from transformers import AutoModel, AutoTokenizer

    ids = AutoTokenizer.from_pretrained(folder)(clip.text)["input_ids"]
    model = AutoModel.from_pretrained(folder).eval()
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    first = model.config.bos_token_id if ids and model.config.model_type != "bert" else None
    if first is not None and ids[0] != first:
        ids = [0, *ids, 2]
    elif model.config.model_type == "bert" and ids[0] != 2:
        ids = [2, *ids, 3]
    return model(input_ids=torch.tensor([ids])).last_hidden_state[0].numpy()


@torch.inference_mode()
def _direct_audio(folder, samples):
    from transformers import (
        AutoConfig,
        AutoFeatureExtractor,
        AutoModel,
        ClapAudioModelWithProjection,
        WhisperFeatureExtractor,
    )

    kind = AutoConfig.from_pretrained(folder).model_type
    if kind == "whisper":
        mel = WhisperFeatureExtractor()(samples, sampling_rate=16000, return_tensors="pt")
        model = AutoModel.from_pretrained(folder).eval()
        return model.encoder(mel.input_features).last_hidden_state[0].numpy()
    extract = AutoFeatureExtractor.from_pretrained(folder)
    rate = 48000 if kind.startswith("clap") else 16000
    inputs = extract(samples, sampling_rate=rate, return_tensors="pt")
    if kind.startswith("clap"):
        model = ClapAudioModelWithProjection.from_pretrained(folder).eval()
        return model(**inputs).audio_embeds.numpy()
    return AutoModel.from_pretrained(folder).eval()(**inputs).last_hidden_state[0].numpy()


@torch.inference_mode()
def _direct_video(folder, pixels):
    from transformers import AutoConfig, AutoModel, CLIPVisionModel

    facts = json.loads((folder / "preprocessor_config.json").read_text())
    mean, std = (np.array(facts[key], np.float32) for key in ("image_mean", "image_std"))
    inputs = torch.from_numpy((pixels / np.float32(255) - mean) / std).permute(0, 3, 1, 2).float()
    kind = AutoConfig.from_pretrained(folder).model_type
    if kind.startswith("clip"):
        model = CLIPVisionModel.from_pretrained(folder).eval()
        return model(inputs).last_hidden_state[:, 0].numpy()
    model = AutoModel.from_pretrained(folder).eval()
    if kind.startswith("siglip"):
        return model(inputs).last_hidden_state.mean(1).numpy()
    if kind in ("timesformer", "videomae"):
        states = model(inputs[None]).last_hidden_state
        return (states.mean(1) if kind == "videomae" else states[:, 0]).numpy()
    return model(inputs).last_hidden_state[:, 0].numpy()
