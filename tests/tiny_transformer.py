"""Writes a tiny random Llama with a tokenizer of bytes: `python tiny_transformer.py FOLDER`.

It runs in an environment that has transformers, see `tests.test_local_models`.
"""

import sys

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)

torch.manual_seed(0)
names = ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
bytes_only = Tokenizer(models.BPE(vocab={name: n for n, name in enumerate(names)}, merges=[]))
bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
bytes_only.decoder = decoders.ByteLevel()
tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=bytes_only, bos_token="<s>", eos_token="</s>", chat_template=TEMPLATE
)
model = LlamaForCausalLM(
    LlamaConfig(
        vocab_size=len(names),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=4096,
        bos_token_id=0,
        eos_token_id=1,
    )
)
model.save_pretrained(sys.argv[1])
tokenizer.save_pretrained(sys.argv[1])
