"""Configuration of an encoder that transformers does not have."""

from transformers import PretrainedConfig


class XLMRobertaFlashConfig(PretrainedConfig):
    model_type = "xlm-roberta"
