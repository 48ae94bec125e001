"""Writes a tiny random Llama with a tokenizer of bytes: `python tiny_gguf.py FILE`.

It runs in an environment that has gguf, see `tests.test_local_models`.
"""

import sys

import numpy as np
from gguf import GGUFWriter, TokenType

WIDTH, HIDDEN, HEADS, LAYERS, CONTEXT = 32, 64, 4, 2, 1024
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"

random = np.random.default_rng(0)
writer = GGUFWriter(sys.argv[1], "llama")
writer.add_context_length(CONTEXT)
writer.add_embedding_length(WIDTH)
writer.add_block_count(LAYERS)
writer.add_feed_forward_length(HIDDEN)
writer.add_head_count(HEADS)
writer.add_head_count_kv(HEADS)
writer.add_layer_norm_rms_eps(1e-5)
writer.add_rope_dimension_count(WIDTH // HEADS)

controls = [b"<unk>", b"<s>", b"</s>"]
each_byte = [f"<0x{byte:02X}>".encode() for byte in range(256)]
letters = ["\u2581".encode(), *(bytes([letter]) for letter in range(33, 127))]
tokens = [*controls, *each_byte, *letters]
kinds = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL]
kinds += [TokenType.BYTE] * len(each_byte) + [TokenType.NORMAL] * len(letters)
writer.add_vocab_size(len(tokens))
writer.add_tokenizer_model("llama")
writer.add_token_list(tokens)
writer.add_token_scores([0.0] * len(tokens))
writer.add_token_types(kinds)
writer.add_unk_token_id(0)
writer.add_bos_token_id(1)
writer.add_eos_token_id(2)
writer.add_chat_template(TEMPLATE)


def add(name: str, *shape: int) -> None:
    writer.add_tensor(name, (random.standard_normal(shape) * 0.5).astype(np.float32))


def add_norm(name: str) -> None:
    writer.add_tensor(name, np.ones(WIDTH, np.float32))


add("token_embd.weight", len(tokens), WIDTH)
add("output.weight", len(tokens), WIDTH)
add_norm("output_norm.weight")
for layer in range(LAYERS):
    add_norm(f"blk.{layer}.attn_norm.weight")
    add_norm(f"blk.{layer}.ffn_norm.weight")
    for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
        add(f"blk.{layer}.{part}.weight", WIDTH, WIDTH)
    add(f"blk.{layer}.ffn_gate.weight", HIDDEN, WIDTH)
    add(f"blk.{layer}.ffn_up.weight", HIDDEN, WIDTH)
    add(f"blk.{layer}.ffn_down.weight", WIDTH, HIDDEN)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
