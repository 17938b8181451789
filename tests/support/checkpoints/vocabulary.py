"""Tiny tokenizers, one per format of published checkpoints: WordPiece, Unigram, byte-level BPE."""

from __future__ import annotations

import json
import string
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import corpus
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

BERT_SPECIALS = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
ROBERTA_SPECIALS = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "cls_token": "<s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
}
QWEN_SPECIALS = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
GEMMA_SPECIALS = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
# PyLate saves the token that ends a text as the padding token where there is no mask token.
LFM2_SPECIALS = {"bos_token": "<|startoftext|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
_SUFFIXES = (
    "ing",
    "ed",
    "er",
    "est",
    "ly",
    "tion",
    "ment",
    "ness",
    "able",
    "al",
    "es",
    "en",
    "ist",
    "ous",
    "ity",
)
_LONGEST_WHOLE_WORD = 8  # longer words are split, so that texts have continuation pieces as in life


def bert_vocabulary() -> list[str]:
    """List the pieces in the layout of bert-base-uncased: ids 0-103 are the special and unused ones."""
    unused = [f"[unused{number}]" for number in range(99)]
    text = " ".join(corpus.SENTENCES + corpus.QUERIES)
    normal = normalizers.BertNormalizer().normalize_str(text)
    cjk = sorted({char for char in normal if "\u4e00" <= char <= "\u9fff"})
    words = sorted(
        {word for word in normal.split() if word.isascii() and word.isalpha() and 1 < len(word) <= _LONGEST_WHOLE_WORD}
    )
    alphabet = string.ascii_lowercase + string.digits
    pieces = [*string.punctuation, "，", "。", *alphabet, *cjk, *words]
    pieces += [f"##{char}" for char in alphabet] + [f"##{suffix}" for suffix in _SUFFIXES]
    return list(dict.fromkeys(["[PAD]", *unused, "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces]))


def bert_tokenizer() -> Tokenizer:
    """Build the tokenizer of bert-base-uncased (lower case, accents stripped) over the tiny vocabulary."""
    vocabulary = {piece: number for number, piece in enumerate(bert_vocabulary())}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = _bert_pairs(tokenizer)
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in BERT_SPECIALS.values()])
    return tokenizer


def unigram_tokenizer() -> Tokenizer:
    """Build the sentencepiece-style Unigram tokenizer of XLM-R (cased, ``<s> $A </s> </s> $B </s>``).

    Its pieces are counted here, not trained: the trainer's result differs from run to run.
    """
    pieces: Counter[str] = Counter()
    for sentence in corpus.SENTENCES + corpus.QUERIES:
        for word in sentence.split():
            pieces.update(f"▁{word}"[: stop + 1] for stop in range(min(len(word), 6)))
            pieces.update(word[start : start + 3] for start in range(len(word)))
    alphabet = sorted({char for piece in pieces for char in piece} | set(string.printable.strip()))
    common = sorted((piece for piece in pieces if len(piece) > 1), key=lambda piece: (-pieces[piece], piece))[:600]
    scores: dict[str, float] = dict.fromkeys(["<s>", "<pad>", "</s>", "<unk>"], 0.0)
    scores |= dict.fromkeys(alphabet, -12.0) | {piece: -10.0 + len(piece) / 2 for piece in common}
    tokenizer = Tokenizer(models.Unigram(list(scores.items()), unk_id=3))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("  ", " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens([*("<s>", "<pad>", "</s>", "<unk>"), AddedToken("<mask>", lstrip=True, special=True)])
    tokenizer.post_processor = _roberta_pairs(tokenizer)
    return tokenizer


def bpe_tokenizer() -> Tokenizer:
    """Train the byte-level BPE tokenizer of RoBERTa."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=800,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus.SENTENCES, trainer)
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", AddedToken("<mask>", lstrip=True, special=True)])
    tokenizer.post_processor = _roberta_pairs(tokenizer)
    return tokenizer


def qwen_tokenizer(more: Sequence[str] = ()) -> Tokenizer:
    """Train the byte-level BPE tokenizer of Qwen on `more` texts too; it adds no special tokens to a text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([*corpus.SENTENCES, *more, *["yes", "no", "Yes"] * 50], trainer)
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens(["<think>", "</think>"])
    return tokenizer


def gemma_tokenizer() -> Tokenizer:
    """Build Gemma's tokenizer: pieces over a text whose blanks are ``▁``, unknown bytes by name, ``<bos>`` before."""
    alphabet = sorted({char for sentence in corpus.SENTENCES for char in sentence} - {" "})
    words = sorted({f"▁{word}" for sentence in corpus.SENTENCES for word in sentence.split() if word.isascii()})
    pieces = [
        "<pad>",
        "<eos>",
        "<bos>",
        "<unk>",
        "<mask>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "▁",
        "Yes",
        *alphabet,
    ]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys([*pieces, *words]))}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", tokenizer.token_to_id("<bos>"))]
    )
    return tokenizer


def mmbert_tokenizer() -> Tokenizer:
    """Build mmBERT's tokenizer: that of Gemma, with a token at the end of a text too."""
    tokenizer = gemma_tokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>",
        pair="<bos> $A <eos> <bos> $B <eos>",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("<bos>", "<eos>")],
    )
    return tokenizer


def lfm2_tokenizer() -> Tokenizer:
    """Train LFM2's tokenizer: byte-level BPE, ``<|startoftext|>`` before a text and nothing after it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|pad|>", "<|startoftext|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=800,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus.SENTENCES, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|startoftext|> $A",
        pair="<|startoftext|> $A <|startoftext|> $B",
        special_tokens=[("<|startoftext|>", tokenizer.token_to_id("<|startoftext|>"))],
    )
    return tokenizer


def modern_tokenizer() -> Tokenizer:
    """Train ModernBERT's tokenizer: byte-level BPE, BERT's special tokens at the end of the vocabulary."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=800, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(corpus.SENTENCES, trainer)
    tokenizer.add_special_tokens(["[UNK]", "[CLS]", "[SEP]", "[PAD]", AddedToken("[MASK]", lstrip=True, special=True)])
    tokenizer.post_processor = _bert_pairs(tokenizer)
    return tokenizer


def deberta_tokenizer() -> Tokenizer:
    """Build DeBERTa-v3's tokenizer: the Unigram pieces of XLM-R behind ``[PAD] [CLS] [SEP] [UNK]``."""
    tokenizer = unigram_tokenizer()
    pieces = json.loads(tokenizer.to_str())["model"]["vocab"][4:]
    scores = [(token, 0.0) for token in ("[PAD]", "[CLS]", "[SEP]", "[UNK]")] + [
        (name, score) for name, score in pieces
    ]
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=3))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Strip(left=False, right=True)])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.add_special_tokens(["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"])
    tokenizer.post_processor = _bert_pairs(tokenizer)
    return tokenizer


def _bert_pairs(tokenizer: Tokenizer) -> processors.TemplateProcessing:
    return processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )


def _roberta_pairs(tokenizer: Tokenizer) -> processors.TemplateProcessing:
    return processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", tokenizer.token_to_id("<s>")), ("</s>", tokenizer.token_to_id("</s>"))],
    )


def write_tokenizer(
    path: Path, tokenizer: Tokenizer, tokenizer_class: str, specials: dict[str, str], max_length: int = 512
) -> None:
    """Write tokenizer.json and its companions, as ``save_pretrained`` of the hub's checkpoints left them."""
    tokenizer.save(str(path / "tokenizer.json"))
    added = {
        str(number): {
            "content": token.content,
            "lstrip": token.lstrip,
            "normalized": token.normalized,
            "rstrip": token.rstrip,
            "single_word": token.single_word,
            "special": token.special,
        }
        for number, token in sorted(tokenizer.get_added_tokens_decoder().items())
    }
    config = {
        "added_tokens_decoder": added,
        "clean_up_tokenization_spaces": True,
        "model_max_length": max_length,
        "tokenizer_class": tokenizer_class,
        **specials,
    }
    if tokenizer_class in ("BertTokenizer", "ElectraTokenizer"):
        config |= {"do_basic_tokenize": True, "do_lower_case": True, "never_split": None}
        config |= {"strip_accents": None, "tokenize_chinese_chars": True}
        pieces = [piece for piece, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])]
        (path / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    if tokenizer_class in ("RobertaTokenizer", "Qwen2Tokenizer"):
        tokenizer.model.save(str(path))  # vocab.json, merges.txt
        config["add_prefix_space"] = False
    write_json(path / "tokenizer_config.json", config)
    write_json(path / "special_tokens_map.json", specials)


def write_json(path: Path, value: object) -> None:
    """Write `value` indented, in UTF-8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
