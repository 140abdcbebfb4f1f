"""A tiny random model and tokeniser for every model type of AutoModelForTokenClassification, made on the fly."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedConfig, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING,
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
)

TYPES = sorted(MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES)
POSITIONS = 24
WORDS = "Ada Lovelace wrote to Charles Babbage in London and was the of".split()
SPECIAL = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3}
# What each type calls its sizes. A configuration gets those that it has.
_NAMES_OF_SIZES = {
    16: "hidden_size d_model emb_dim n_embd dim embedding_size input_embedding_size output_embedding_size",
    2: "num_hidden_layers n_layer n_layers num_layers num_attention_heads n_head n_heads num_heads"
    " num_key_value_heads num_experts_per_tok moe_topk index_n_heads",
    32: "intermediate_size d_ff hidden_dim d_inner n_inner ffn_dim",
    8: "head_dim d_kv d_head entity_emb_size pronunciation_embed_dim shape_embed_dim v_head_dim kv_lora_rank"
    " moe_intermediate_size shared_expert_intermediate_size qk_rope_head_dim qk_nope_head_dim q_lora_rank"
    " index_topk index_head_dim linear_key_head_dim linear_value_head_dim",
    4: "entity_vocab_size pronunciation_vocab_size shape_vocab_size num_experts num_local_experts"
    " n_routed_experts linear_num_key_heads linear_num_value_heads",
    1: "n_group topk_group",
    64: "vocab_size",
    POSITIONS: "max_position_embeddings n_positions",
}
SIZES = {name: size for size, names in _NAMES_OF_SIZES.items() for name in names.split()} | {
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
MIXED_LAYERS = {"layer_types": ["linear_attention", "full_attention"]}
FURTHER: dict[str, dict[str, Any]] = {
    "funnel": {"block_sizes": [1, 1], "num_decoder_layers": 1},
    "gpt_neo": {"attention_types": [[["global"], 2]]},
    "mistral4": {"head_dim": 16, "qk_head_dim": 16},
    "mobilebert": {"true_hidden_size": 16, "intra_bottleneck_size": 16},
    "qwen3_5_text": MIXED_LAYERS,
    "qwen3_next": MIXED_LAYERS,
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
}
# Special tokens around a text: template and token type of the first one.
TEMPLATES = {
    "ends": "[CLS] $A [SEP]",
    "none": "$A",
    "start": "[CLS] $A",
    "end": "$A [SEP]",
    "xlnet": "$A [SEP] [CLS]",
    "funnel": "[CLS]:2 $A:0 [SEP]:0",
}
# Types whose published tokenisers have other special tokens than one at each end.
OWN_TEMPLATE = (
    dict.fromkeys(
        "apertus arcee axk1 axk2 biogpt deepseek_v3 diffllama gemma gemma2 helium llama ministral ministral3"
        " mistral mistral4 mixtral persimmon phi3 t5gemma t5gemma2".split(),
        "start",
    )
    | dict.fromkeys(
        "bloom exaone4 falcon glm glm4 gpt-sw3 gpt2 gpt_bigcode gpt_neo gpt_neox gpt_oss minimax mpt nemotron"
        " openai_privacy_filter phi qwen2 qwen2_moe qwen3 qwen3_5 qwen3_asr qwen3_moe qwen3_next seed_oss smollm3"
        " stablelm starcoder2".split(),
        "none",
    )
    | {"t5": "end", "mt5": "end", "umt5": "end", "xlnet": "xlnet", "funnel": "funnel"}
)


def tiny_config(config_class: type[PreTrainedConfig], **further: Any) -> PreTrainedConfig:
    """A configuration with two layers of width 16, nested configurations included."""
    default = config_class()
    settings = {name: size for name, size in SIZES.items() if name in default.to_dict()}
    settings |= FURTHER.get(config_class.model_type, {})
    for name in config_class.sub_configs:
        nested = getattr(default, name, None)
        if isinstance(nested, PreTrainedConfig):
            settings[name] = tiny_config(type(nested)).to_dict()
    return config_class(**settings | further)


def write_model(folder: Path, model_type: str, **further: Any) -> None:
    """Save a token-classification model with random weights."""
    config = tiny_config(CONFIG_MAPPING[model_type], **further)
    model_class = MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING[type(config)]
    if isinstance(model_class, tuple):
        model_class = model_class[0]
    torch.manual_seed(0)
    model_class(config).save_pretrained(folder)


def write_config(folder: Path, model_type: str) -> None:
    """Save a configuration alone."""
    CONFIG_MAPPING[model_type]().save_pretrained(folder)


def write_tokenizer(folder: Path, template: str = "ends") -> None:
    """Save a tokeniser whose pieces are WORDS, with the special tokens of a template."""
    vocabulary = SPECIAL | {word: len(SPECIAL) + place for place, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=TEMPLATES[template], special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    ).save_pretrained(folder)
