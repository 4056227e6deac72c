"""Adapters: one dataset a file, from its own layout to manifest rows."""

DATASETS: dict[str, str] = {
    "arrays": "Labels in arrays (npz, HDF5, pickle), for clips whose features are ready.",
    "avamerg": "AvaMERG: conversations with an empathic listener, 7 emotions.",
    "cremad": "CREMA-D: 7,442 clips of acted speech, 6 emotions, 91 actors.",
    "emobox": "EmoBox: 32 corpora of emotional speech by one layout, with its fixed folds.",
    "emodb": "EmoDB: 535 clips of acted German speech, 7 emotions, 10 speakers.",
    "empathic_reactions": "Empathic Reactions: 1,860 essays with ratings of empathy and distress.",
    "folder": "Media files of your own plus a table of labels.",
    "huggingface": "Hugging Face datasets on disk: saved folders or Parquet files with media inside.",
    "iemocap": "IEMOCAP: about 10,000 turns of ten actors in five sessions.",
    "influencer_empathy": "Influencer empathy: features of words, voice and face with a score of empathy.",
    "meld": "MELD: 13,708 utterances in dialogues, 7 emotions, 3 sentiments.",
    "mmsa": "Pickles of the MMSA family (MOSI, MOSEI, SIMS and their like): features and labels.",
    "mosei": "CMU-MOSEI: about 23,000 utterances with sentiment scores.",
    "mosi": "CMU-MOSI, CMU-MOSEI, CH-SIMS: utterances with sentiment scores.",
    "ravdess": "RAVDESS: 1440 clips of acted speech, 8 emotions, 24 actors.",
    "sims": "CH-SIMS: 2,281 Chinese utterances with sentiment scores, also of each modality.",
    "synthetic": "Painted faces and synthetic voices: 240 clips of acted emotion, made from a seed.",
    "video_sentiment": "Video sentiment: short cuts of films, negative or positive, with votes.",
    "webdataset": "WebDataset tars: films and sounds read in place, facts from the JSON beside them.",
}
"""Adapter name (= file name) -> one-line help."""
