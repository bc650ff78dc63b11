/* BERT's tokenizer as a tokenizer.json of the book describes it: clean, split, lower-case, WordPiece.

   tests/harness/site/test_live.py compares it with Python's on every code point in use. */
"use strict";

(function (home) {
  const HAN = /[\u4E00-\u9FFF\u3400-\u4DBF\u{20000}-\u{2A6DF}\u{2A700}-\u{2B73F}\u{2B740}-\u{2B81F}\u{2B920}-\u{2CEAF}\uF900-\uFAFF\u{2F800}-\u{2FA1F}]/u;
  const SPACE = /\p{White_Space}/u;
  const OTHER = /[\p{Cc}\p{Cf}\p{Co}]|\uFFFD/u;
  const MARK = /\p{Mn}/gu;
  const PUNCTUATION = /[!-/:-@[-`{-~]|\p{P}/u;

  class WordPiece {
    constructor(described) {
      const model = described.model;
      if (model.type !== "WordPiece" || described.normalizer.type !== "BertNormalizer") throw new Error("tokenizer.json");
      this.vocabulary = new Map(Object.entries(model.vocab));
      this.prefix = model.continuing_subword_prefix;
      this.longest = model.max_input_chars_per_word;
      this.lowercase = described.normalizer.lowercase;
      this.unknown = model.unk_token;
      this.names = [];
      for (const [name, id] of this.vocabulary) this.names[id] = name;
      const special = described.added_tokens.map((one) => one.content.replace(/[\[\]]/g, "\\$&"));
      this.special = new RegExp(`(${special.join("|")})`);
    }

    id(name) { return this.vocabulary.get(name); }

    /* Words of a text that holds no special token. */
    words(text) {
      let clean = "";
      for (const one of text) {
        if (!"\t\n\r".includes(one) && OTHER.test(one)) continue; // other controls go first, were they spaces
        if (SPACE.test(one)) clean += " ";
        else clean += HAN.test(one) ? ` ${one} ` : one;
      }
      if (this.lowercase) {
        clean = clean.normalize("NFD").replace(MARK, "");
        clean = Array.from(clean, (one) => one.toLowerCase()).join("");
      }
      const words = [];
      let word = "";
      const finish = () => { if (word) words.push(word); word = ""; };
      for (const one of clean) {
        if (SPACE.test(one)) finish();
        else if (PUNCTUATION.test(one)) { finish(); words.push(one); }
        else word += one;
      }
      finish();
      return words;
    }

    pieces(word) {
      const letters = Array.from(word);
      if (letters.length > this.longest) return [this.unknown];
      const found = [];
      for (let start = 0; start < letters.length;) {
        let end = letters.length;
        let piece = null;
        for (; end > start; end--) {
          const tried = (start ? this.prefix : "") + letters.slice(start, end).join("");
          if (this.vocabulary.has(tried)) { piece = tried; break; }
        }
        if (piece === null) return [this.unknown];
        found.push(piece);
        start = end;
      }
      return found;
    }

    /* Tokens of a text, without [CLS] and [SEP], from place *start* to *end*, as `slice` has them; which words among
       those the vocabulary lacks, and how many tokens were left out. */
    tokenize(text, start, end) {
      const tokens = [];
      const words = []; // of each token
      for (const part of text.toWellFormed ? text.toWellFormed().split(this.special) : text.split(this.special)) {
        if (this.special.test(part) && this.vocabulary.has(part)) {
          tokens.push(part);
          words.push(part);
          continue;
        }
        for (const word of this.words(part)) {
          for (const piece of this.pieces(word)) {
            tokens.push(piece);
            words.push(word);
          }
        }
      }
      const kept = tokens.slice(start, end);
      const unknown = words.slice(start, end).filter((_, i) => kept[i] === this.unknown);
      return { tokens: kept, unknown, cut: tokens.length - kept.length };
    }
  }

  home.WordPiece = WordPiece;
})(self);
