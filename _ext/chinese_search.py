"""Chinese full-text search without a word list.

Sphinx segments Chinese pages with jieba, which is not bundled, and never segments the query, so most
Chinese queries find nothing. Here page and query are cut alike: a run of Chinese characters becomes all
its pairs of neighbours (监督微调 → 监督, 督微, 微调), and on the page its single characters too, so that
a query of one character works. Terms of a query are ANDed by Sphinx's search.
"""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx
from sphinx.search.zh import SearchChinese

_HAN = "\u3400-\u4dbf\u4e00-\u9fff"
_HAN_RUN = re.compile(f"[{_HAN}]+")
_LATIN_WORD = re.compile(r"[A-Za-z0-9_]+")

_SPLIT_QUERY = (
    r"""
var splitQuery = (query) => {
  const terms = [];
  for (const word of query.match(/[HAN]+|[^\sHAN\p{P}\p{S}]+(?:_+[^\sHAN\p{P}\p{S}]+)*/gu) || []) {
    if (!/[HAN]/u.test(word) || word.length === 1) terms.push(word);
    else for (let i = 0; i + 1 < word.length; i++) terms.push(word.slice(i, i + 2));
  }
  return terms;
};
"""
).replace("HAN", r"\u3400-\u4dbf\u4e00-\u9fff")


class ChineseBigrams(SearchChinese):
    """Index single characters and pairs of neighbours; split the query into pairs."""

    js_splitter_code = _SPLIT_QUERY

    def split(self, input: str) -> list[str]:
        """Terms of a text, in no particular order."""
        terms: list[str] = []
        for run in _HAN_RUN.findall(input):
            terms.extend(run)
            terms.extend(run[i : i + 2] for i in range(len(run) - 1))
        return terms + _LATIN_WORD.findall(input)

    def stem(self, word: str) -> str:
        """Stem Latin words as the browser's Porter stemmer does; Chinese stays as it is."""
        return word if _HAN_RUN.match(word) else self.stemmer.stemWord(word.lower())

    def word_filter(self, stemmed_word: str) -> bool:
        """Keep every Chinese term, and Latin words that are not stop words."""
        if _HAN_RUN.match(stemmed_word):
            return True
        return len(stemmed_word) > 1 and stemmed_word not in self.stopwords


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the language in place of Sphinx's own."""
    app.add_search_language(ChineseBigrams)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
