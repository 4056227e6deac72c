"""Token facts of a Whisper: prompt, suppressed tokens, languages and timing heads."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.errors import ConfigError, WeightsError


@dataclass(frozen=True)
class TokenFacts:
    """The facts beside the weights that decoding needs."""

    tokenizer: Any
    start: int
    """Start of transcript."""

    after: tuple[int, ...]
    """What follows the language: the task and "no timestamps"."""

    end: int
    """End of text; every token above it is special as well."""

    never: list[int]
    never_first: list[int]
    heads: list[tuple[int, int]]
    """(layer, head) of the cross-attention that follows the speech."""

    languages: dict[str, int]
    """Code -> token; empty for an English-only model."""

    language: str | None
    """The chosen one; None asks the model."""

    def text(self, tokens: list[int]) -> str:
        """Decoded tokens."""
        return str(self.tokenizer.decode(tokens))


def of_tiny_en(config: Path, tokenizer: Path) -> TokenFacts:
    """Facts of tiny.en as CTranslate2 keeps them."""
    facts = json.loads(config.read_text())
    return TokenFacts(
        tokenizer=_tokenizer(tokenizer),
        start=50257,
        after=(50362,),
        end=50256,
        never=facts["suppress_ids"],
        never_first=facts["suppress_ids_begin"],
        heads=_heads(facts["alignment_heads"]),
        languages={},
        language="en",
    )


def of_folder(folder: Path, language: str) -> TokenFacts:
    """Facts of a model of the hub, from its ``generation_config.json``.

    Args:
        folder: the model's.
        language: a code such as ``en``, or ``auto``.

    Raises:
        WeightsError: the folder has no such file, or it lacks a fact.
        ConfigError: the model does not know the language.
    """
    path = folder / "generation_config.json"
    if not path.exists():
        raise WeightsError(f"{folder} has no generation_config.json; expected a Whisper's folder")
    facts = json.loads(path.read_text())
    languages = {key.strip("<|>"): value for key, value in facts.get("lang_to_id", {}).items()}
    if languages and language != "auto" and language not in languages:
        raise ConfigError(f"language={language}; known: auto, {', '.join(sorted(languages))}")
    try:
        task = (facts["task_to_id"]["transcribe"],) if languages else ()
        return TokenFacts(
            tokenizer=_tokenizer(folder / "tokenizer.json"),
            start=facts["decoder_start_token_id"],
            after=(*task, facts["no_timestamps_token_id"]),
            end=facts["eos_token_id"],
            never=facts.get("suppress_tokens") or [],
            never_first=facts.get("begin_suppress_tokens") or [],
            heads=_heads(facts.get("alignment_heads", [])),
            languages=languages,
            language=None if languages and language == "auto" else language,
        )
    except KeyError as error:
        raise WeightsError(f"{path} says nothing of {error}") from error


def _tokenizer(path: Path) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(path))


def _heads(pairs: list[list[int]]) -> list[tuple[int, int]]:
    return [(int(layer), int(head)) for layer, head in pairs]
