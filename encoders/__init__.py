"""Pretrained encoders, one file each.

`ENCODERS` maps a name to the module that holds its `SPEC` and its wrapper class. The modules import
torch and other heavy libraries only when a wrapper is constructed, so that the table can be listed in
milliseconds.
"""

ENCODERS: dict[str, str] = {
    "afx_egemaps": "encoders.audio.afx_egemaps",
    "bart_large": "encoders.text.bart_large",
    "bert_base": "encoders.text.bert_base",
    "clap": "encoders.audio.clap",
    "clip_vit": "encoders.video.clip_vit",
    "dinov2_base": "encoders.video.dinov2_base",
    "egemaps": "encoders.audio.egemaps",
    "emotieffnet": "encoders.video.emotieffnet",
    "emotieffnet_va": "encoders.video.emotieffnet_va",
    "emotion2vec": "encoders.audio.emotion2vec",
    "face_expression": "encoders.video.face_expression",
    "face_hog": "encoders.video.face_hog",
    "hub_audio": "encoders.audio.hub_audio",
    "hub_embedding": "encoders.text.hub_embedding",
    "hub_text": "encoders.text.hub_text",
    "hub_video": "encoders.video.hub_video",
    "hub_whisper": "encoders.audio.hub_whisper",
    "hubert_base": "encoders.audio.hubert_base",
    "logmel_stats": "encoders.audio.logmel_stats",
    "minilm": "encoders.text.minilm",
    "opensmile": "encoders.audio.opensmile",
    "roberta_base": "encoders.text.roberta_base",
    "sensevoice": "encoders.audio.sensevoice",
    "timesformer": "encoders.video.timesformer",
    "vggish": "encoders.audio.vggish",
    "videomae": "encoders.video.videomae",
    "vit_base": "encoders.video.vit_base",
    "w2v_bert": "encoders.audio.w2v_bert",
    "wav2vec2_base": "encoders.audio.wav2vec2_base",
    "wav2vec2_dimensional": "encoders.audio.wav2vec2_dimensional",
    "wavlm_base": "encoders.audio.wavlm_base",
    "whisper_base": "encoders.audio.whisper_base",
    "whisper_small": "encoders.audio.whisper_small",
    "whisper_tiny_en": "encoders.audio.whisper_tiny_en",
    "xlm_roberta_base": "encoders.text.xlm_roberta_base",
}
"""Encoder name (= file name) -> module with `SPEC`."""

TRANSCRIBERS: dict[str, str] = {
    "sensevoice_asr": "encoders.audio.sensevoice_asr",
    "whisper_small_asr": "encoders.audio.whisper_small_asr",
    "whisper_tiny_en_asr": "encoders.audio.whisper_tiny_en_asr",
}
"""Transcriber name -> module with `SPEC`."""
