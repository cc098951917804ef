#!/usr/bin/env python3
"""Makes a table of word vectors from lists of short descriptions, with statistics alone: no neural network, no download.

Words that keep the same company in many descriptions get similar vectors. Each pair of words of a text counts as one meeting.
How much oftener two words meet than chance would have it is their positive pointwise mutual information (PPMI). A singular
value decomposition (SVD) keeps the few directions that explain most of it: Levy and Goldberg, "Neural word embedding as
implicit matrix factorization", 2014.

A list is a text file in UTF-8: a header line, then a line for each description, with tabs between its cells. The first cell is
a name, the last a summary; what stands between is not read.

The same lists give the same bytes on the same machine. The decomposition is floating-point arithmetic, so another machine or
another number of threads may round a few numbers differently: keep the file that you made, and spread that one.

The table, all numbers little endian:

    4 bytes   "AOPW"
    u8        form, 1
    u8        dimensions D
    u16       zero
    u32       words N
    u32       bytes of the words
    N * D     i8, a row for each word
    N         u8, the rarity of each word: sixteenths of a power of two, in texts on agents and MCP
    rest      the words, each closed by a newline, in the order of their bytes; the rows stand in the same order
"""

import argparse
import json
import math
import re
import struct
import sys
import unicodedata
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np
import scipy.sparse as sparse
import Stemmer

MAGIC = b"AOPW"
FORM = 1
# Magic, form, dimensions, zero, number of words, bytes of words.
HEAD = struct.Struct("<4sBBHII")
# A node numbers words with 16 bits and keeps the last number for "none".
WORDS_MAX = 65535
# The head has one byte for it.
DIMENSIONS_MAX = 255

# Shorter summaries say too little, longer ones are pages whose words no longer speak of one thing.
SUMMARY_CHARS = range(20, 401)
# The name and the summary.
CELLS_MIN = 2
# A summary with fewer different words than this is a label, and says little of which words belong together.
SUMMARY_WORDS_MIN = 4
# Some lists of packages put such a note where others have a summary.
NOT_A_SUMMARY = "[tested"
# The language whose lists often hold texts of other languages. Those have more letters beyond ASCII than this leaves room for.
ASCII_LANGUAGE = "english"
ASCII_SHARE_MIN = 0.95

# Single letters mean nothing by themselves; what is longer is an identifier or a slip, not a word.
WORD_CHARS = range(2, 21)
# Texts of the kind that a node searches. A word's rarity is counted in them alone.
OF_THE_TRADE = re.compile(r"\bmcp\b|agent")

# A text repeats a document if they share this part of the words of both …
REPEATED_OF_BOTH = 0.7
# … or if it has this part of the document's words, and the document is long enough for that not to be chance.
REPEATED_OF_DOCUMENT = 0.8
REPEATED_WORDS_MIN = 6
# A word that so many documents have points at none of them.
DOCUMENTS_OF_A_WORD_MAX = 60

# Raises the chance of rare companions, so that rare pairs do not crowd out the rest. The customary value.
CONTEXT_POWER = 0.75
# Random directions for each one that is kept: more than enough to catch it.
SKETCH_FACTOR = 3
# Multiplications that turn the random directions towards the strongest ones. More change nothing that int8 shows.
POWER_STEPS = 4
# Any number will do, as long as it stays.
SEED = 1
# Keeps a word without company from dividing by zero.
TINY = 1e-9
# The greatest number of a row. A thousandth of all numbers is cut to it: outliers would cost the others their precision.
ROW_MAX = 127
ROW_PERCENTILE = 99.9
# Steps of rarity for each power of two, and how many fit into its byte.
RARITY_STEPS = 16
RARITY_MAX = 255
# A word found in no text is taken for found in half a one.
UNSEEN = 0.5

# Between "base64" and "Encode", between "HTTP" and "Server".
CAMEL_SEAM = re.compile("(?<=[a-z0-9])(?=[A-Z])" "|" "(?<=[A-Z])(?=[A-Z][a-z])")
WORD = re.compile(r"[^\W_]+")
ASCII_WORD = re.compile(r"[a-z0-9]+")


class Unfit(Exception):
    """The input cannot give a table; the text says why and what to do."""


class Text(NamedTuple):
    """A name and a summary."""

    name: str
    summary: str

    def is_of_the_trade(self) -> bool:
        """Whether the summary speaks of agents or of MCP."""
        return OF_THE_TRADE.search(self.summary.lower()) is not None


class Vocabulary(NamedTuple):
    """The words of a table in the order of their bytes, and in how many texts each stands."""

    words: list[str]
    texts: list[int]
    texts_of_the_trade: list[int]


class Table(NamedTuple):
    """A finished table, and how many texts it was made from."""

    content: bytes
    texts: int
    texts_of_the_trade: int


class Language:
    """How texts of a language are cut into words."""

    def __init__(self, name: str) -> None:
        """Takes the name of a stemmer of PyStemmer."""
        if name not in Stemmer.algorithms():
            raise Unfit(f"no stemmer is called {name!r}: choose one of {', '.join(Stemmer.algorithms())}")
        self._stemmer = Stemmer.Stemmer(name)
        self._stems: dict[str, str] = {}
        self._is_ascii = name == ASCII_LANGUAGE

    def stems(self, text: str) -> list[str]:
        """The stems of all words of a text, cut as a node cuts them; words in camelCase give their parts."""
        return [self._stem(word) for word in WORD.findall(fold(CAMEL_SEAM.sub(" ", text)))]

    def _stem(self, word: str) -> str:
        """The stem of a folded word. The node stems no word beyond ASCII, so neither does the table."""
        known = self._stems.get(word)
        if known is None:
            known = self._stems[word] = self._stemmer.stemWord(word) if word.isascii() else word
        return known

    def plain_words(self, text: str) -> set[str]:
        """The different words of a text, unstemmed: what tells whether two texts are the same."""
        return set((ASCII_WORD if self._is_ascii else WORD).findall(text.lower()))

    def admits(self, text: str) -> bool:
        """Whether a text may be in this language, as far as its letters tell."""
        return not self._is_ascii or sum(map(str.isascii, text)) >= ASCII_SHARE_MIN * len(text)


def fold(text: str) -> str:
    """Lower case, without accents and compatibility forms."""
    return "".join(letter for letter in unicodedata.normalize("NFKD", text).lower() if not unicodedata.combining(letter))


def open_text(path: Path) -> TextIO:
    """Opens a text file, or says why not."""
    try:
        return path.open(encoding="utf-8", errors="replace")
    except OSError as error:
        raise Unfit(f"cannot read {path}: {error.strerror}") from error


def parse_line(line: str, language: Language) -> Text | None:
    """The name and summary of a line of a list, if it has a summary of use."""
    cells = line.rstrip("\n").split("\t")
    summary = cells[-1].strip()
    fits = len(cells) >= CELLS_MIN and len(summary) in SUMMARY_CHARS and not summary.startswith(NOT_A_SUMMARY)
    return Text(cells[0], summary) if fits and language.admits(summary) else None


def read_lists(paths: Iterable[Path], language: Language) -> Iterator[Text]:
    """All texts of some lists. Of texts with the same words the first is taken."""
    met: set[str] = set()
    for path in paths:
        usable = 0
        with open_text(path) as lines:
            next(lines, None)
            for text in filter(None, (parse_line(line, language) for line in lines)):
                words = language.plain_words(text.summary)
                if len(words) < SUMMARY_WORDS_MIN:
                    continue
                usable += 1
                key = " ".join(sorted(words))
                if key not in met:
                    met.add(key)
                    yield text
        if not usable:
            raise Unfit(
                f"{path} has no usable line: after a header line each needs a name, a tab and a summary of "
                f"{SUMMARY_CHARS.start} to {SUMMARY_CHARS.stop - 1} characters in the language of the stemmer"
            )


def description(document: object) -> str:
    """The text of an element of a JSON list: a string, or an object's description, also where it wraps a document."""
    if isinstance(document, dict):
        document = document.get("document", document)
    if isinstance(document, dict):
        document = document.get("description")
    return document if isinstance(document, str) else ""


def read_documents(path: Path) -> list[str]:
    """The texts of a JSON list if the file's name ends in .json, else its lines."""
    with open_text(path) as file:
        if path.suffix.lower() != ".json":
            return file.read().splitlines()
        try:
            documents = json.load(file)
        except ValueError as error:
            raise Unfit(f"{path} is not JSON: {error}") from error
    if not isinstance(documents, list):
        raise Unfit(f"{path} is not a JSON list: put the documents, or their texts, between [ and ]")
    return [description(document) for document in documents]


def repeats_of(documents: Iterable[str], language: Language) -> Callable[[str], bool]:
    """A function that tells whether a text repeats most of the words of one of the documents."""
    bags = [bag for bag in map(language.plain_words, documents) if len(bag) >= SUMMARY_WORDS_MIN]
    holders: defaultdict[str, list[int]] = defaultdict(list)
    for number, bag in enumerate(bags):
        for word in bag:
            holders[word].append(number)
    telling = {word: numbers for word, numbers in holders.items() if len(numbers) < DOCUMENTS_OF_A_WORD_MAX}

    def is_repeated(bag: set[str], words: set[str]) -> bool:
        shared = len(bag & words)
        if shared >= REPEATED_OF_BOTH * len(bag | words):
            return True
        return len(bag) >= REPEATED_WORDS_MIN and shared >= REPEATED_OF_DOCUMENT * len(bag)

    def repeats(text: str) -> bool:
        words = language.plain_words(text)
        candidates = {number for word in words for number in telling.get(word, ())}
        return any(is_repeated(bags[number], words) for number in candidates)

    return repeats


def choose_vocabulary(bags: list[tuple[str, ...]], of_the_trade: list[bool], size: int) -> Vocabulary:
    """The words that most texts have. Of words equally common the first in the alphabet is taken."""
    texts = Counter(word for bag in bags for word in bag if len(word) in WORD_CHARS and not word.isdigit())
    if len(texts) < size:
        raise Unfit(f"the lists have {len(texts)} different words, {size} are asked for: lower --words, or add lists")
    near = Counter(word for bag, is_near in zip(bags, of_the_trade, strict=True) if is_near for word in bag)
    words = sorted(sorted(texts, key=lambda word: (-texts[word], word))[:size])
    return Vocabulary(words, [texts[word] for word in words], [near[word] for word in words])


def count_meetings(bags: list[tuple[str, ...]], words: list[str]) -> sparse.coo_matrix:
    """How often each two words meet in a text. A text's meetings weigh the less the more words it has."""
    numbers = {word: number for number, word in enumerate(words)}
    columns, lengths = array("i"), array("i")
    for bag in bags:
        known = [numbers[word] for word in bag if word in numbers]
        columns.extend(known)
        lengths.append(len(known))
    rows = np.repeat(np.arange(len(bags)), lengths)
    stands = sparse.csr_matrix((np.ones(len(columns), np.float32), (rows, columns)), shape=(len(bags), len(words)))
    # Single precision from here on: half the memory, and far finer than the bytes of a row.
    weights = 1 / np.sqrt(np.maximum(lengths, 1).astype(np.float32))
    weighted = sparse.diags(weights) @ stands
    meetings = (weighted.T @ weighted).tocoo()
    others = meetings.row != meetings.col
    pairs = (meetings.row[others], meetings.col[others])
    return sparse.coo_matrix((meetings.data[others], pairs), shape=meetings.shape)


def ppmi(meetings: sparse.coo_matrix) -> sparse.csr_matrix:
    """Positive pointwise mutual information of all pairs that meet oftener than by chance, equal both ways round."""
    totals = np.asarray(meetings.tocsr().sum(axis=1)).ravel()
    chances = totals**CONTEXT_POWER
    chances /= chances.sum()
    ratios = meetings.data / (totals[meetings.row] * chances[meetings.col])
    above = ratios > 1
    pairs = (meetings.row[above], meetings.col[above])
    one_way = sparse.csr_matrix((np.log(ratios[above]), pairs), shape=meetings.shape)
    return (one_way + one_way.T) * np.float32(0.5)


def strongest_directions(matrix: sparse.csr_matrix, dimensions: int) -> np.ndarray:
    """The first singular vectors of a symmetric matrix, a row for each word: Halko, Martinsson and Tropp, 2011."""
    random = np.random.default_rng(SEED)
    sketch = matrix @ random.standard_normal((matrix.shape[0], SKETCH_FACTOR * dimensions)).astype(np.float32)
    for _ in range(POWER_STEPS):
        sketch = matrix @ np.linalg.qr(sketch).Q
    projected = matrix @ np.linalg.qr(sketch).Q
    return np.linalg.svd(projected.T, full_matrices=False).Vh[:dimensions].T


def to_rows(vectors: np.ndarray, rarities: np.ndarray) -> np.ndarray:
    """Signed bytes: each vector as long as its word is rare, as the words that all texts have say least."""
    unit = vectors / (np.linalg.norm(vectors, axis=1, keepdims=True) + TINY)
    scaled = unit * (rarities / rarities.max())[:, None]
    unit_step = np.percentile(np.abs(scaled), ROW_PERCENTILE)
    return np.clip(np.round(scaled * (ROW_MAX / unit_step)), -ROW_MAX, ROW_MAX).astype(np.int8)


def rarity_byte(texts_with: int, texts: int) -> int:
    """How rare a word is, in sixteenths of a power of two."""
    return min(RARITY_MAX, round(RARITY_STEPS * math.log2((texts + 1) / (texts_with + UNSEEN))))


def encode(rows: np.ndarray, rarities: bytes, words: list[str]) -> bytes:
    """The bytes of a table; their order is told above."""
    text = "".join(f"{word}\n" for word in words).encode()
    count, dimensions = rows.shape
    return HEAD.pack(MAGIC, FORM, dimensions, 0, count, len(text)) + rows.tobytes() + rarities + text


def make_table(
    lists: Iterable[Path],
    words: int = 32000,
    dimensions: int = 96,
    stemmer: str = "english",
    without: Path | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Table:
    """Makes a table from lists; `tell` is given a line when a step begins."""
    if not 1 <= dimensions <= DIMENSIONS_MAX:
        raise Unfit(f"{dimensions} dimensions: a table has 1 to {DIMENSIONS_MAX}")
    if not dimensions <= words <= WORDS_MAX:
        raise Unfit(f"{words} words: ask for {dimensions}, one for each dimension, to {WORDS_MAX}")
    language = Language(stemmer)
    is_left_out = repeats_of(read_documents(without), language) if without else lambda _: False

    tell("reading")
    bags, of_the_trade = [], []
    for text in read_lists(lists, language):
        if not is_left_out(text.summary):
            bags.append(tuple(sorted(set(language.stems(f"{text.name} {text.summary}")))))
            of_the_trade.append(text.is_of_the_trade())
    vocabulary = choose_vocabulary(bags, of_the_trade, words)
    near = sum(of_the_trade)
    if not near:
        tell("no text is on agents or MCP: all words will be equally rare")

    tell(f"counting which words meet in {len(bags)} texts")
    matrix = ppmi(count_meetings(bags, vocabulary.words))
    if not matrix.nnz:
        raise Unfit("no two of these words meet in a text oftener than by chance: ask for more words, or add lists")

    tell(f"decomposing {matrix.nnz} pairs of words")
    rarities = np.array([math.log((len(bags) + 1) / (texts + UNSEEN)) for texts in vocabulary.texts])
    rows = to_rows(strongest_directions(matrix, dimensions), rarities)
    rarity_bytes = bytes(rarity_byte(texts, near) for texts in vocabulary.texts_of_the_trade)
    return Table(encode(rows, rarity_bytes, vocabulary.words), len(bags), near)


def check_output(path: Path) -> None:
    """Refuses before all work a place that cannot be written, and a file that is no table: a list put first by mistake."""
    if path.is_dir() or not path.parent.is_dir():
        raise Unfit(f"cannot write {path}: name a file in a folder that exists")
    if path.exists():
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise Unfit(f"{path} exists and is no table: name the table first, then the lists")


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(
        description="Makes a table of word vectors from lists of names and short descriptions.",
        epilog="example: make_table.py words.bin packages.tsv tools.tsv --without tests/search/agents.json",
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="where the table is written")
    parser.add_argument(
        "lists", metavar="LIST", type=Path, nargs="+", help="tab separated: name first, summary last; one header line"
    )
    parser.add_argument("--words", metavar="N", type=int, default=32000, help="words of the table (%(default)s)")
    parser.add_argument(
        "--dimensions", metavar="N", type=int, default=96, help="numbers of a vector (%(default)s, which a node expects)"
    )
    parser.add_argument(
        "--stemmer", metavar="LANGUAGE", default="english",
        help="language of the lists (%(default)s, which a node expects), one of " + ", ".join(Stemmer.algorithms()),
    )
    parser.add_argument(
        "--without", metavar="FILE", type=Path,
        help="leave out what repeats most words of a document: a list of documents or strings if FILE ends in .json, else a "
        "text a line; so that a benchmark on them measures what the table has not seen",
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Makes the table that the command line asks for; 1 if that cannot be done."""
    options = parse_arguments(arguments)

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    try:
        check_output(options.out)
        table = make_table(options.lists, options.words, options.dimensions, options.stemmer, options.without, tell)
        options.out.write_bytes(table.content)
    except (Unfit, OSError) as error:
        print(f"make_table.py: {error}", file=sys.stderr)
        return 1
    print(
        f"{table.texts} texts, {table.texts_of_the_trade} on agents and MCP, "
        f"{options.words} words, {options.dimensions} dimensions"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
