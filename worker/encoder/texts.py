"""A text tower exported beside its image tower, and run without torch: texts to tokens, tokens to vectors.

Tokens are those of open_clip's SimpleTokenizer, which OpenAI's CLIP brought and most models of open_clip take. It
imports torch, so here are its steps by the libraries that do them: ftfy mends letters, `regex` cuts words by its own
pattern, and `tokenizers` joins pairs of letters by a vocabulary that the export has written. Knows no model by name.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from worker.core.vectors import Vectors
from worker.encoder.exported import OUTPUT, onnx_session

Tokens = npt.NDArray[np.int64]

#: The name of the exported tower's input.
TOKENS = "tokens"
#: Where words begin and end, by open_clip 3.3; whoever exports sees whether it is still that.
PATTERN = r"<start_of_text>|<end_of_text>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
#: What an exported tower is compared with torch's on.
SAMPLE = (
    "",
    " \t\n",
    "a",
    "a photo of a dog",
    "The Eiffel Tower at night, seen from the river",
    "it's what they'll say: DON'T",
    "Красная площадь в Москве зимней ночью",
    "площадь с фонтаном и жёлтым домом, вид с крыши",
    "Straße in Zürich, café à côté",
    "日本の寺院と桜",
    "شارع قديم في القاهرة",
    "&lt;b&gt;bridge&lt;/b&gt; &amp; river",
    "cafe\u0301 on the corner",
    "schÃ¶ne BrÃ¼cke",
    "🌉🏙️ !!! ...",
    "1234567890 ½ Ⅷ no. 42",
    "<start_of_text> inside <end_of_text>",
    "'ſ ΟΔΟΣ İstanbul",
    "a long walk through the old town " * 30,
    "очень длинное описание одной и той же улицы " * 30,
    "x" * 2000,
)


class Tokenizer:
    """Texts to tokens, by the vocabulary that an export has written."""

    def __init__(self, path: Path) -> None:
        import regex
        import tokenizers

        self._words = regex.compile(PATTERN, regex.IGNORECASE)
        self._tokenizer = tokenizers.Tokenizer.from_file(str(path))

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """int64 [n, context]: what is longer is cut, what is shorter is filled up."""
        words = [self._words.findall(cleaned(text)) for text in texts]
        found = self._tokenizer.encode_batch(words, is_pretokenized=True)
        return np.array([one.ids for one in found], dtype=np.int64)


class OnnxTexts:
    """The exported tower by ONNX Runtime on the CPU. See worker.encoder.base.RunTexts."""

    def __init__(self, tower: Path, vocabulary: Path, *, threads: int) -> None:
        self._tokens = Tokenizer(vocabulary)
        self._session = onnx_session(tower, threads=threads)

    def __call__(self, texts: Sequence[str]) -> Vectors:
        (vectors,) = self._session.run([OUTPUT], {TOKENS: self._tokens(texts)})
        return np.asarray(vectors, dtype=np.float32)


def cleaned(text: str) -> str:
    """Mended, without entities, with single blanks, in small letters."""
    import ftfy

    whole = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(whole.split()).lower()


def write_vocabulary(path: Path, *, ids: dict[str, int], pairs: Sequence[tuple[str, str]], context: int) -> None:
    """Write what `Tokenizer` reads. ids: of every token, the first and the last of a text among them; pairs: of tokens
    that become one, the sooner the more so; context: tokens of a text."""
    from tokenizers import Tokenizer as Joined
    from tokenizers import models, pre_tokenizers, processors

    first, last = "<start_of_text>", "<end_of_text>"
    joined = Joined(models.BPE(vocab=ids, merges=list(pairs), end_of_word_suffix="</w>", continuing_subword_prefix=""))
    joined.add_special_tokens([first, last])
    joined.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    joined.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}", special_tokens=[(first, ids[first]), (last, ids[last])]
    )
    joined.enable_truncation(context)
    joined.enable_padding(length=context, pad_id=0)
    joined.save(str(path))
