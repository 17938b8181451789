"""An encoder whose parameters have names of their own."""

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput

from .configuration_xlm_roberta import XLMRobertaFlashConfig


class XLMRobertaPreTrainedModel(PreTrainedModel):
    config_class = XLMRobertaFlashConfig
    base_model_prefix = "roberta"


class XLMRobertaModel(XLMRobertaPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        width = config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, width)
        self.place_embeddings = nn.Embedding(config.max_position_embeddings, width)
        self.mixer = nn.Linear(width, 3 * width)
        self.norm = nn.LayerNorm(width)
        self.post_init()

    def get_input_embeddings(self):
        return self.word_embeddings

    def forward(self, input_ids=None, attention_mask=None, **kwargs):
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        states = self.word_embeddings(input_ids) + self.place_embeddings(places)[None]
        query, key, value = self.mixer(states).chunk(3, dim=-1)
        mask = attention_mask[:, None, :].bool()
        states = states + nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return BaseModelOutput(last_hidden_state=self.norm(states))


class XLMRobertaForSequenceClassification(XLMRobertaPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.roberta = XLMRobertaModel(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(self, input_ids=None, attention_mask=None, **kwargs):
        states = self.roberta(input_ids, attention_mask).last_hidden_state
        return SequenceClassifierOutput(logits=self.classifier(states[:, 0]))
