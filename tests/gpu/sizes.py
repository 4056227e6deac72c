"""The models of the hub at the sizes that their cards state, with random weights, and a clip's input to each.

A clip is five seconds: 20 tokens of text, 80,000 samples, 16 frames (8 for TimeSformer, as it reads them).
"""

import torch

from tests.gpu import shapes

CLIP_S = 5.0
TOKENS = 20
PATCHES, FACES, FRAMES = "patches", "x", "frames of sound"
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}
LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
HALVES = ("encoder", "decoder")


def _halves(layers, heads, width):
    sizes = {"layers": layers, "attention_heads": heads, "ffn_dim": width}
    return {f"{half}_{name}": value for half in HALVES for name, value in sizes.items()}


SIZES = {
    # name: (config class, model class, real size beside the class's own, tiny size, input)
    "bart_large": ("BartConfig", "BartModel", {}, {"d_model": 32, **_halves(2, 4, 48)}, "tokens"),
    "bert_base": ("BertConfig", "BertModel", {}, SMALL, "tokens"),
    "clap": ("ClapAudioConfig", "ClapAudioModelWithProjection", {}, {
        "patch_embeds_hidden_size": 8, "hidden_size": 32, "depths": [1, 1, 1],
        "num_attention_heads": [2, 2, 2], "projection_dim": 32, "num_hidden_layers": 3}, "clap"),
    "clip_vit": ("CLIPVisionConfig", "CLIPVisionModel", {}, {
        **SMALL, "image_size": 32, "patch_size": 8}, "frames"),
    "dinov2_base": ("Dinov2Config", "Dinov2Model", {"image_size": 224, "patch_size": 14}, {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 32,
        "patch_size": 8}, "frames"),
    "emotieffnet": (None, None, {**shapes.B0, "outputs": 8}, {**shapes.THIN, "outputs": 8}, FACES),
    "emotieffnet b2": (None, None, {**shapes.B2, "outputs": 8}, {**shapes.THIN, "outputs": 8}, FACES),
    "emotieffnet_va": (None, None, {**shapes.B0, "outputs": 10}, {**shapes.THIN, "outputs": 10}, FACES),
    "emotion2vec": (None, None, {}, {
        "dim": 32, "heads": 4, "hidden": 48, "channels": 16, "context_blocks": 1, "blocks": 1}, "samples"),
    "emotion2vec large": (None, None, {"dim": 1024, "heads": 16, "hidden": 4096}, {
        "dim": 32, "heads": 4, "hidden": 48, "channels": 16, "context_blocks": 1, "blocks": 1}, "samples"),
    "hub_audio large": ("Wav2Vec2Config", "Wav2Vec2Model", {
        **LARGE, "feat_extract_norm": "layer", "do_stable_layer_norm": True}, {
        **SMALL, "conv_dim": [16] * 7, "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4}, "samples"),
    "hub_embedding 0.6B": ("Qwen3Config", "Qwen3Model", {
        "hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8,
        "head_dim": 128, "intermediate_size": 3072, "vocab_size": 151669}, {
        **SMALL, "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 50}, "tokens"),
    "hub_text large": ("XLMRobertaConfig", "XLMRobertaModel", {
        **LARGE, "vocab_size": 250002, "max_position_embeddings": 514}, SMALL, "tokens"),
    "hub_video clip_large": ("CLIPVisionConfig", "CLIPVisionModel", {
        **LARGE, "patch_size": 14}, {**SMALL, "image_size": 32, "patch_size": 8}, "frames"),
    "hub_whisper large_v3": ("WhisperConfig", "WhisperModel", {
        "d_model": 1280, "num_mel_bins": 128, **_halves(32, 20, 5120)}, {
        "d_model": 32, "vocab_size": 50, "decoder_start_token_id": 1, "bos_token_id": 2, "eos_token_id": 2,
        "pad_token_id": 2, **_halves(2, 4, 48)}, "mel"),
    "hubert_base": ("HubertConfig", "HubertModel", {}, {
        **SMALL, "conv_dim": [16] * 7, "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4}, "samples"),
    "minilm": ("BertConfig", "BertModel", {
        "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12,
        "intermediate_size": 1536}, SMALL, "tokens"),
    "roberta_base": ("RobertaConfig", "RobertaModel", {
        "vocab_size": 50265, "max_position_embeddings": 514}, SMALL, "tokens"),
    "sensevoice": (None, None, shapes.SENSEVOICE, shapes.SMALL_SENSEVOICE, FRAMES),
    "timesformer": ("TimesformerConfig", "TimesformerModel", {}, {
        **SMALL, "image_size": 32, "patch_size": 8}, "run"),
    "vggish": (None, None, {}, {"widths": (4,) * 6, "dense": (8, 8, 4)}, PATCHES),
    "videomae": ("VideoMAEConfig", "VideoMAEModel", {}, {
        **SMALL, "image_size": 32, "patch_size": 8}, "run"),
    "vit_base": ("ViTConfig", "ViTModel", {}, {**SMALL, "image_size": 32, "patch_size": 8}, "frames"),
    "w2v_bert": ("Wav2Vec2BertConfig", "Wav2Vec2BertModel", {}, SMALL, "pairs"),
    "wav2vec2_base": ("Wav2Vec2Config", "Wav2Vec2Model", {}, {
        **SMALL, "conv_dim": [16] * 7, "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4}, "samples"),
    "wav2vec2_dimensional": ("Wav2Vec2Config", "Wav2Vec2Model", {
        **LARGE, "num_hidden_layers": 12, "feat_extract_norm": "layer", "do_stable_layer_norm": True}, {
        **SMALL, "conv_dim": [16] * 7, "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4}, "samples"),
    "wavlm_base": ("WavLMConfig", "WavLMModel", {}, {
        **SMALL, "conv_dim": [16] * 7, "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4}, "samples"),
    "whisper_base": ("WhisperConfig", "WhisperModel", {"d_model": 512, **_halves(6, 8, 2048)}, {
        "d_model": 32, "vocab_size": 50, "decoder_start_token_id": 1, "bos_token_id": 2, "eos_token_id": 2,
        "pad_token_id": 2, **_halves(2, 4, 48)}, "mel"),
    "whisper_small": ("WhisperConfig", "WhisperModel", {"d_model": 768, **_halves(12, 12, 3072)}, {
        "d_model": 32, "vocab_size": 50, "decoder_start_token_id": 1, "bos_token_id": 2, "eos_token_id": 2,
        "pad_token_id": 2, **_halves(2, 4, 48)}, "mel"),
    "whisper_tiny_en": ("WhisperConfig", "WhisperModel", {"d_model": 384, **_halves(4, 6, 1536)}, {
        "d_model": 32, "vocab_size": 50, "decoder_start_token_id": 1, "bos_token_id": 2, "eos_token_id": 2,
        "pad_token_id": 2, **_halves(2, 4, 48)}, "mel"),
    "xlm_roberta_base": ("XLMRobertaConfig", "XLMRobertaModel", {
        "vocab_size": 250002, "max_position_embeddings": 514}, SMALL, "tokens"),
}  # fmt: skip


def without_size(names):
    """Encoders of the hub that nobody has written a size down for."""
    return sorted(set(names) - {name.split()[0] for name in SIZES})


def build(name, *, small, device):
    """A model with random weights, made where it runs: of Whisper and BART the half that is used.

    Returns:
        The model that is called, and the whole that is saved.
    """
    import transformers

    from encoders.audio._emotion2vec_net import Emotion2vecNet, Sizes
    from encoders.audio._sensevoice_net import SenseVoiceNet
    from encoders.audio._vggish_net import VggishNet
    from encoders.video._efficientnet import EfficientNet

    config_class, model_class, real, tiny, _ = SIZES[name]
    own = {
        "emotieffnet": lambda **size: EfficientNet(_empty(shapes.efficientnet(**size))),
        "emotion2vec": lambda **size: Emotion2vecNet(Sizes(**size)),
        "sensevoice": lambda **size: SenseVoiceNet(_empty(shapes.sensevoice(**size))),
        "vggish": lambda **size: VggishNet(**size),
    }
    if config_class is None:
        make = own[name.split()[0].removesuffix("_va")]
        net = make(**(tiny if small else real)).eval().to(device)
        return net, net
    config = getattr(transformers, config_class)(**(tiny if small else real))
    torch.manual_seed(0)
    with torch.device(device):
        whole = getattr(transformers, model_class)(config).eval()
    used = whole.get_encoder() if config.is_encoder_decoder else whole
    return used, whole


def _empty(sizes):
    """Tensors of which only the shapes count."""
    return {name: torch.empty(shape, device="meta") for name, shape in sizes.items()}


def inputs(name, model, batch, device, dtype):
    """What the model is called with for some clips."""
    kind = SIZES[name][4]

    def noise(*shape):
        return torch.randn(batch, *shape, device=device, dtype=dtype)

    if kind == PATCHES:  # of 0.96 s, one behind the other
        return {PATCHES: noise(5, 1, 96, 64).flatten(0, 1)}
    if kind == FACES:
        side = 260 if "b2" in name else 224
        return {FACES: noise(16, 3, side, side).flatten(0, 1)}
    if kind == FRAMES:  # of 60 ms
        count = round(CLIP_S / 0.06)
        return {
            "frames": noise(count, shapes.FEATURE),
            "lengths": [count] * batch,
            "asked": (0, 1, 2, 14),
        }
    config = model.config

    if kind == "tokens":
        return {"input_ids": torch.full((batch, TOKENS), 5, device=device)}
    if kind == "samples":
        return {"input_values": noise(round(CLIP_S * 16_000))}
    if kind == "mel":  # padded to 30 s, as it was trained
        return {"input_features": noise(config.num_mel_bins, 3000)}
    if kind == "pairs":  # of log-mel frames
        return {"input_features": noise(round(CLIP_S * 50), config.feature_projection_input_dim)}
    if kind == "clap":
        return {"input_features": noise(1, 1001, 64), "is_longer": None}
    side = config.image_size
    if kind == "run":
        return {"pixel_values": noise(config.num_frames, 3, side, side)}
    pixels = noise(16, 3, side, side)
    return {"pixel_values": pixels.flatten(0, 1)}
