"""How query and text become the tokens of one input: prompt and template counted, no query takes all the room."""

from __future__ import annotations

from typing import Any

from rerank_integrations.core.models.pair_lengths import PairCut, pair_cut, text_room

# Returned as lists, whole: for counting.
_UNCUT: dict[str, dict[str, Any]] = {
    "common": {"return_tensors": None},
    "text": {"padding": False, "truncation": False, "max_length": None, "verbose": False},
}


class PairReader:
    """What a `sentence_transformers.CrossEncoder` makes of (query, text) pairs before it computes.

    Encoders join the two by separators, language models fill them into a chat template. Either is done by the
    checkpoint's first module, with the prompt that it names as its default. Not safe under threads: the tokenizer is
    one, and truncation and padding are its state.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._prompt: str | None = model.prompts.get(model.default_prompt_name)
        self.fixed = self.count([("", "")])[0]
        """Tokens of a pair of empty texts: separators, or prompt and template."""
        # A template is cut at its end, which is the text's; two sides with separators, each at its own.
        self._longest_first = self.fixed == model.tokenizer.num_special_tokens_to_add(pair=True)

    def count(self, pairs: list[tuple[str, str]]) -> list[int]:
        """Return each pair's length in tokens before any cut, prompt and template included."""
        return [len(ids) for ids in self._preprocess(pairs, _UNCUT)["input_ids"]] if pairs else []

    def query_room(self, limit: int) -> int:
        """Return how many tokens of a pair cut to `limit` a query may take: three quarters of what both have."""
        return max(limit - self.fixed, 0) * 3 // 4

    def cut(self, query: str, count: int, limit: int) -> PairCut:
        """Return what is cut of a pair of `count` tokens with `query`, where `limit` are read."""
        alone = len(self._query_tokens(query)["input_ids"])
        text = count - self.fixed - alone
        share = min(alone, self.query_room(limit))
        if not self._longest_first:
            return PairCut(share < alone, share + text > limit - self.fixed)
        cut = pair_cut(share, text, limit - self.fixed)
        return PairCut(cut.query or share < alone, cut.text)

    def text_room(self, query: str, limit: int) -> int:
        """Return how many tokens of any text are read whole beside `query`, itself cut if need be."""
        share = min(len(self._query_tokens(query)["input_ids"]), self.query_room(limit))
        room = limit - self.fixed
        return text_room(share, room) if self._longest_first else max(1, room - share)

    def is_over_its_share(self, query: str, limit: int) -> bool:
        """Whether `query` is longer than `query_room` allows."""
        return len(self._query_tokens(query)["input_ids"]) > self.query_room(limit)

    def read(self, pairs: list[tuple[str, str]], limit: int) -> dict[str, Any]:
        """Return the features of the pairs, cut to `limit` tokens; the end of a template is never cut."""
        fitted = self._with_room_for_texts(pairs, limit)
        if not self.fixed:
            # With nothing around them two empty texts have no token, and there would be nothing to compute.
            fitted = [(query, text or ("" if query else " ")) for query, text in fitted]
        return self._preprocess(fitted, {"text": {"max_length": limit}})

    def _preprocess(self, pairs: list[tuple[str, str]], processing: dict[str, dict[str, Any]]) -> dict[str, Any]:
        features: dict[str, Any] = self._model.preprocess(pairs, prompt=self._prompt, processing_kwargs=processing)
        return features

    def _with_room_for_texts(self, pairs: list[tuple[str, str]], limit: int) -> list[tuple[str, str]]:
        # A template is cut at its end, where the text stands: a long query would leave nothing of it.
        long = {query for query in {query for query, _ in pairs} if self.is_over_its_share(query, limit)}
        if not long:
            return pairs
        beginnings = {query: self._beginning(query, self.query_room(limit)) for query in long}
        return [
            (beginnings[query] if query in long and count > limit else query, text)
            for (query, text), count in zip(pairs, self.count(pairs), strict=True)
        ]

    def _beginning(self, query: str, tokens: int) -> str:
        encoded = self._query_tokens(query)
        if "offset_mapping" in encoded:
            return query[: encoded["offset_mapping"][tokens][0]]
        kept: str = self._model.tokenizer.decode(encoded["input_ids"][:tokens])
        return kept

    def _query_tokens(self, query: str) -> Any:
        tokenizer = self._model.tokenizer
        return tokenizer(
            query,
            add_special_tokens=False,
            truncation=False,
            padding=False,
            verbose=False,
            return_offsets_mapping=tokenizer.is_fast,
        )
