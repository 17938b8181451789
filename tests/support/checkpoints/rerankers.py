"""Cross-encoders of newer families (ModernBERT, DeBERTa-v3, custom code), and language models that rerank."""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import corpus
from tokenizers import Tokenizer
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    DebertaV2Config,
    GemmaConfig,
    ModernBertConfig,
    ModernBertDecoderConfig,
    ModernBertModel,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
    XLMRobertaConfig,
)

from .encoders import HIDDEN, TINY, seeded
from .own_code import write_own_code
from .vocabulary import (
    BERT_SPECIALS,
    GEMMA_SPECIALS,
    QWEN_SPECIALS,
    ROBERTA_SPECIALS,
    deberta_tokenizer,
    gemma_tokenizer,
    modern_tokenizer,
    qwen_tokenizer,
    unigram_tokenizer,
    write_json,
    write_tokenizer,
)

INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"

_QWEN3_TEMPLATE = f"""<|im_start|>system
Judge whether the Document meets the requirements based on the Query and the Instruct provided. Note that the answer \
can only be "yes" or "no".<|im_end|>
<|im_start|>user
<Instruct>: {{{{ messages | selectattr("role", "eq", "system") | map(attribute="content") | first | \
default("{INSTRUCTION}") }}}}
<Query>: {{{{ messages | selectattr("role", "eq", "query") | map(attribute="content") | first }}}}
<Document>: {{{{ messages | selectattr("role", "eq", "document") | map(attribute="content") | first }}}}<|im_end|>
<|im_start|>assistant
<think>

</think>

"""
_MXBAI_TEMPLATE = """<|im_start|>system
You are a search relevance expert who evaluates how well documents match search queries.<|im_end|>
<|im_start|>user
query: {{ messages | selectattr("role", "eq", "query") | map(attribute="content") | first }}
document: {{ messages | selectattr("role", "eq", "document") | map(attribute="content") | first }}
Answer with 1 or 0: is the document relevant?<|im_end|>
<|im_start|>assistant
"""
_GEMMA_TEMPLATE = """{{ bos_token }}A: \
{{ messages | selectattr("role", "eq", "query") | map(attribute="content") | first }}
B: {{ messages | selectattr("role", "eq", "document") | map(attribute="content") | first }}
Does passage B answer query A? Yes or No"""
# The query is the system's message, the text the user's, and "Yes" the answer that counts.
_ZERANK_TEMPLATE = """<|im_start|>system
{{ messages | selectattr("role", "eq", "query") | map(attribute="content") | first }}<|im_end|>
<|im_start|>user
{{ messages | selectattr("role", "eq", "document") | map(attribute="content") | first }}<|im_end|>
<|im_start|>assistant
"""
# The template of a chat model: it omits roles other than its own.
CHAT_TEMPLATE = """{%- for message in messages %}{%- if message.role in ['system', 'user', 'assistant'] %}
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endif %}{%- endfor %}<|im_start|>assistant
"""


def write_modernbert_reranker(path: Path, seed: int = 21) -> Path:
    """Write Alibaba-NLP/gte-reranker-modernbert-base: mean pooling under the head, 8192 tokens (here 256)."""
    tokenizer = modern_tokenizer()
    write_tokenizer(path, tokenizer, "PreTrainedTokenizerFast", BERT_SPECIALS, max_length=256)
    config = modernbert_config(tokenizer, num_labels=1, classifier_pooling="mean")
    model = AutoModelForSequenceClassification.from_config(config)
    return save(path, seeded(model, seed), modernbert_v4(config))


_MODERNBERT_SIZES = (
    "vocab_size",
    "hidden_size",
    "num_attention_heads",
    "intermediate_size",
    "num_hidden_layers",
    "max_position_embeddings",
    "local_attention",
    "bos_token_id",
    "eos_token_id",
    "cls_token_id",
    "sep_token_id",
    "pad_token_id",
)
_MODERNBERT_SPECIAL = {"bos": "[CLS]", "eos": "[SEP]", "cls": "[CLS]", "sep": "[SEP]", "pad": "[PAD]"}


def modernbert_config(
    tokenizer: Tokenizer, special: Mapping[str, str] = _MODERNBERT_SPECIAL, **more: Any
) -> ModernBertConfig:
    ids = {f"{name}_token_id": tokenizer.token_to_id(token) for name, token in special.items()}
    sizes = {key: TINY[key] for key in ("hidden_size", "num_attention_heads", "intermediate_size")}
    sizes |= {"num_hidden_layers": 4, "max_position_embeddings": 256, "local_attention": 16}
    return ModernBertConfig(vocab_size=tokenizer.get_vocab_size(), **sizes, **ids, **more)


def modernbert_v4(config: ModernBertConfig) -> dict[str, Any]:
    """Return the settings that transformers 4 wrote for the two kinds of attention."""
    saved = config.to_dict()
    del saved["rope_parameters"], saved["layer_types"]
    return saved | {"global_rope_theta": 160000.0, "local_rope_theta": 10000.0, "global_attn_every_n_layers": 3}


def write_deberta_reranker(path: Path, seed: int = 22) -> Path:
    """Write mixedbread-ai/mxbai-rerank-base-v1: relative positions, a pooler of its own, 512 tokens (here 128)."""
    tokenizer = deberta_tokenizer()
    specials = BERT_SPECIALS | {"bos_token": "[CLS]", "eos_token": "[SEP]"}
    write_tokenizer(path, tokenizer, "DebertaV2Tokenizer", specials, max_length=128)
    config = DebertaV2Config(
        **TINY,
        vocab_size=tokenizer.get_vocab_size(),
        num_labels=1,
        relative_attention=True,
        pos_att_type="p2c|c2p",
        position_buckets=32,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        position_biased_input=False,
        pooler_hidden_size=HIDDEN,
    )
    return save(path, seeded(AutoModelForSequenceClassification.from_config(config), seed), config.to_dict())


def write_long_xlmr_reranker(path: Path, seed: int = 23) -> Path:
    """Write BAAI/bge-reranker-v2-m3: XLM-R with 8194 positions for 8192 tokens (here 258 and 256)."""
    tokenizer = unigram_tokenizer()
    write_tokenizer(path, tokenizer, "XLMRobertaTokenizer", ROBERTA_SPECIALS, max_length=256)
    config = _xlmr_config(tokenizer)
    return save(path, seeded(AutoModelForSequenceClassification.from_config(config), seed), config.to_dict())


def write_own_code_reranker(path: Path, *, with_type: bool = False, seed: int = 24) -> Path:
    """Write jinaai/jina-reranker-v2-base-multilingual: XLM-R in code beside the weights, named by auto_map.

    ``with_type`` keeps the name of a model type that transformers has a class of its own for.
    """
    tokenizer = unigram_tokenizer()
    write_tokenizer(path, tokenizer, "XLMRobertaTokenizer", ROBERTA_SPECIALS, max_length=256)
    saved = _xlmr_config(tokenizer).to_dict()
    if not with_type:
        del saved["model_type"]
    return write_own_code(path, saved, "XLMRobertaForSequenceClassification", seed)


def write_japanese_reranker(path: Path, seed: int = 29) -> Path:
    """Write a classifier over tohoku-nlp/bert-base-japanese-char: a Python tokenizer without character offsets."""
    characters = sorted({char for sentence in corpus.CHINESE for char in sentence} | set(string.ascii_lowercase))
    pieces = [*BERT_SPECIALS.values(), *characters]
    (path / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    kind = {"word_tokenizer_type": "basic", "subword_tokenizer_type": "character", "do_lower_case": True}
    settings = {"tokenizer_class": "BertJapaneseTokenizer", "model_max_length": 256, **kind, **BERT_SPECIALS}
    write_json(path / "tokenizer_config.json", settings)
    sizes = TINY | {"vocab_size": len(pieces), "max_position_embeddings": 256, "num_labels": 1}
    config = BertConfig(**sizes, pad_token_id=pieces.index("[PAD]"))
    saved = config.to_dict() | {"tokenizer_class": "BertJapaneseTokenizer"}
    return save(path, seeded(AutoModelForSequenceClassification.from_config(config), seed), saved)


def _xlmr_config(tokenizer: Tokenizer) -> XLMRobertaConfig:
    ids = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    sizes = TINY | {"max_position_embeddings": 258, "type_vocab_size": 1, "vocab_size": tokenizer.get_vocab_size()}
    return XLMRobertaConfig(**sizes, **ids, num_labels=1)


def write_qwen3_reranker(
    path: Path,
    form: Literal["modules", "template", "chat"] = "modules",
    *,
    prompt: str | None = None,
    seed: int = 25,
) -> Path:
    """Write Qwen/Qwen3-Reranker-0.6B: a language model asked for "yes" or "no".

    ``"modules"`` is what it became for sentence-transformers: modules.json with LogitScore, and a template with the
    roles of a pair; ``"template"`` has the template alone; ``"chat"`` is a plain chat model. `prompt` is saved as the
    default prompt, which the template takes for its instruction.
    """
    path.mkdir(parents=True, exist_ok=True)
    tokenizer = qwen_tokenizer([_QWEN3_TEMPLATE] * 20)
    write_tokenizer(path, tokenizer, "Qwen2Tokenizer", QWEN_SPECIALS, max_length=131072)
    template = CHAT_TEMPLATE if form == "chat" else _QWEN3_TEMPLATE
    (path / "chat_template.jinja").write_text(template, encoding="utf-8")
    config = Qwen3Config(**_decoder(tokenizer), head_dim=12, tie_word_embeddings=True)
    save(path, seeded(AutoModelForCausalLM.from_config(config), seed), _rope_v4(config))
    if form == "modules":
        _write_modules(path, tokenizer.token_to_id("yes"), tokenizer.token_to_id("no"), prompt)
    return path


def write_qwen3_classifier(path: Path, *, template: str = _QWEN3_TEMPLATE, seed: int = 26) -> Path:
    """Write tomaarsen/Qwen3-Reranker-0.6B-seq-cls: the same model with a one-label classifier at the last token."""
    tokenizer = qwen_tokenizer([_QWEN3_TEMPLATE] * 20)
    write_tokenizer(path, tokenizer, "Qwen2Tokenizer", QWEN_SPECIALS, max_length=131072)
    if template:
        (path / "chat_template.jinja").write_text(template, encoding="utf-8")
    pad = tokenizer.token_to_id("<|endoftext|>")
    config = Qwen3Config(**_decoder(tokenizer), head_dim=12, num_labels=1, pad_token_id=pad)
    return save(path, seeded(AutoModelForSequenceClassification.from_config(config), seed), _rope_v4(config))


def write_mxbai_reranker(path: Path, seed: int = 27) -> Path:
    """Write mixedbread-ai/mxbai-rerank-base-v2: Qwen2, the logit of "1" minus that of "0"."""
    tokenizer = qwen_tokenizer([_MXBAI_TEMPLATE] * 20)
    write_tokenizer(path, tokenizer, "Qwen2Tokenizer", QWEN_SPECIALS, max_length=32768)
    (path / "chat_template.jinja").write_text(_MXBAI_TEMPLATE, encoding="utf-8")
    config = Qwen2Config(**_decoder(tokenizer), tie_word_embeddings=True)
    save(path, seeded(AutoModelForCausalLM.from_config(config), seed), _rope_v4(config))
    return _write_modules(path, tokenizer.token_to_id("1"), tokenizer.token_to_id("0"), None)


def write_zerank(path: Path, seed: int = 30) -> Path:
    """Write zeroentropy/zerank-2: Qwen3, the logit of "Yes" alone, which its card divides by 5 before a sigmoid.

    Until May 2026 its own code did that; since then it is a CrossEncoder of sentence-transformers that gives logits.
    """
    tokenizer = qwen_tokenizer([_QWEN3_TEMPLATE] * 20)
    write_tokenizer(path, tokenizer, "Qwen2Tokenizer", QWEN_SPECIALS, max_length=32768)
    (path / "chat_template.jinja").write_text(_ZERANK_TEMPLATE, encoding="utf-8")
    config = Qwen3Config(**_decoder(tokenizer), head_dim=12, tie_word_embeddings=True)
    save(path, seeded(AutoModelForCausalLM.from_config(config), seed), _rope_v4(config))
    identity = "torch.nn.modules.linear.Identity"
    return _write_modules(path, tokenizer.token_to_id("Yes"), None, None, activation=identity)


def write_ettin_reranker(path: Path, seed: int = 31) -> Path:
    """Let sentence-transformers save cross-encoder/ettin-reranker-17m-v1: its head is four modules after the encoder.

    They are the first token's vector, a dense layer with GELU, a norm, and a dense layer with one output.
    """
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling

    tokenizer = modern_tokenizer()
    write_tokenizer(path, tokenizer, "PreTrainedTokenizerFast", BERT_SPECIALS, max_length=256)
    config = modernbert_config(tokenizer)
    save(path, seeded(ModernBertModel(config), seed), modernbert_v4(config))
    hidden = config.hidden_size
    vector = {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"}
    score = {"module_input_name": "sentence_embedding", "module_output_name": "scores"}
    head = [
        Pooling(hidden, pooling_mode="cls"),
        seeded(Dense(hidden, hidden, bias=False, activation_function=nn.GELU(), **vector), seed + 1),
        seeded(LayerNorm(hidden), seed + 2),
        seeded(Dense(hidden, 1, activation_function=nn.Identity(), **score), seed + 3),
    ]
    model = CrossEncoder(modules=[Transformer(str(path)), *head], device="cpu", activation_fn=nn.Identity())
    model.save_pretrained(str(path), create_model_card=False)
    return path


def write_modernbert_decoder_reranker(path: Path, seed: int = 32) -> Path:
    """Write a one-label classifier over jhu-clsp/ettin-decoder-17m: ModernBERT that reads from left to right."""
    tokenizer = modern_tokenizer()
    write_tokenizer(path, tokenizer, "PreTrainedTokenizerFast", BERT_SPECIALS, max_length=256)
    same = {name: getattr(modernbert_config(tokenizer), name) for name in _MODERNBERT_SIZES}
    config = ModernBertDecoderConfig(**same, num_labels=1)
    model = AutoModelForSequenceClassification.from_config(config)
    return save(path, seeded(model, seed), config.to_dict())


def write_gemma_reranker(path: Path, *, with_modules: bool = True, seed: int = 28) -> Path:
    """Write BAAI/bge-reranker-v2-gemma: with modules.json the logit of "Yes" alone, else no template, as on the hub."""
    tokenizer = gemma_tokenizer()
    write_tokenizer(path, tokenizer, "GemmaTokenizer", GEMMA_SPECIALS, max_length=1000000000000000019884624838656)
    special = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
    config = GemmaConfig(**_decoder(tokenizer), head_dim=12, **special, tie_word_embeddings=True)
    save(path, seeded(AutoModelForCausalLM.from_config(config), seed), _rope_v4(config))
    if not with_modules:
        return path
    (path / "chat_template.jinja").write_text(_GEMMA_TEMPLATE, encoding="utf-8")
    return _write_modules(path, tokenizer.token_to_id("Yes"), None, None)


def write_qwen3_embedder(path: Path) -> Path:
    """Write Qwen/Qwen3-Embedding-0.6B: a bi-encoder whose config.json says Qwen3ForCausalLM."""
    write_qwen3_reranker(path, "chat")
    kinds = ["Transformer", "Pooling", "Normalize"]
    write_json(
        path / "modules.json",
        [
            {
                "idx": n,
                "name": str(n),
                "path": f"{n}_{kind}" if n else "",
                "type": f"sentence_transformers.models.{kind}",
            }
            for n, kind in enumerate(kinds)
        ],
    )
    write_json(path / "config_sentence_transformers.json", {"prompts": {"query": "Instruct: "}})
    return path


def write_listwise_reranker(path: Path) -> Path:
    """Write jinaai/jina-reranker-v3: Qwen3 in custom code that reads many texts at once."""
    config = json.loads((write_qwen3_reranker(path, "chat") / "config.json").read_text(encoding="utf-8"))
    named = {"architectures": ["JinaForRanking"], "auto_map": {"AutoModel": "modeling.JinaForRanking"}}
    write_json(path / "config.json", config | named)
    return path


def _decoder(tokenizer: Tokenizer) -> dict[str, Any]:
    sizes = {key: TINY[key] for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")}
    return sizes | {
        "num_key_value_heads": 2,
        "vocab_size": tokenizer.get_vocab_size(),
        "max_position_embeddings": 256,
    }


def _rope_v4(config: PreTrainedConfig) -> dict[str, Any]:
    saved = config.to_dict()
    return {key: value for key, value in saved.items() if key != "rope_parameters"} | {"rope_theta": 10000.0}


def _write_modules(
    path: Path,
    true_token: int,
    false_token: int | None,
    prompt: str | None,
    *,
    activation: str = "torch.nn.modules.activation.Sigmoid",
) -> Path:
    forward = {"method": "forward", "method_output_name": "logits"}
    write_json(
        path / "sentence_bert_config.json",
        {
            "transformer_task": "text-generation",
            "modality_config": {"text": forward, "message": forward | {"format": "flat"}},
            "module_output_name": "causal_logits",
        },
    )
    package = "sentence_transformers"
    write_json(
        path / "modules.json",
        [
            {"idx": 0, "name": "0", "path": "", "type": f"{package}.base.modules.transformer.Transformer"},
            {
                "idx": 1,
                "name": "1",
                "path": "1_LogitScore",
                "type": f"{package}.cross_encoder.modules.logit_score.LogitScore",
            },
        ],
    )
    write_json(path / "1_LogitScore" / "config.json", {"true_token_id": true_token, "false_token_id": false_token})
    write_json(
        path / "config_sentence_transformers.json",
        {
            "model_type": "CrossEncoder",
            "__version__": {"sentence_transformers": "5.4.0", "transformers": "4.57.3", "pytorch": "2.9.0"},
            "prompts": {} if prompt is None else {"default": prompt},
            "default_prompt_name": None if prompt is None else "default",
            "activation_fn": activation,
        },
    )
    return path


def save(path: Path, model: PreTrainedModel, config: dict[str, Any]) -> Path:
    """Write weights as ``save_pretrained`` does (tied ones once), and `config` as transformers 4 did."""
    model.save_pretrained(path)
    saved = {key: value for key, value in config.items() if key != "dtype"}
    saved |= {"architectures": [type(model).__name__], "torch_dtype": "float32", "transformers_version": "4.51.0"}
    write_json(path / "config.json", saved)
    return path
