/* The search page: see full_text_search.py. SEARCH_DATA is its list of sections, SEARCH_NAMES what means the same. */
"use strict";

(() => {
  const HAN = "\u3400-\u4dbf\u4e00-\u9fff";
  const HAN_RUN = new RegExp(`^[${HAN}]{3,}$`, "u"), RUNS = new RegExp(`[${HAN}]+|[^${HAN}]+`, "gu");
  const SHOWN = 40, OF_A_PAGE = 4, FEW = 5, AROUND = 46;
  const WEIGHT = { exact: 60, heading: 25, title: 12, text: 6, code: 3, phrase: 20, part: 0.2, name: 0.4 };

  const clean = (text) => text.normalize("NFKC").trim().toLowerCase();
  const escaped = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");

  /* "logits计算" also means "logits 计算": a blank may stand where the script changes. */
  const pattern = (word) => new RegExp(
    escaped(word).replace(new RegExp(`(?<=[${HAN}])(?=[^${HAN}\\s])|(?<=[^${HAN}\\s])(?=[${HAN}])`, "gu"), "\\s*"), "giu");

  /* All names of the thing that is called so. */
  const names = new Map();
  for (const group of SEARCH_NAMES) for (const name of group) names.set(clean(name), group.map(clean));
  const anyOf = (words) => new RegExp(
    `(?:${[...words].sort((a, b) => b.length - a.length).map((word) => pattern(word).source).join("|")})`, "giu");
  const partOf = (word) => {
    const others = (names.get(word) || []).filter((name) => name !== word);
    return {
      words: [word, ...others], expression: anyOf([word, ...others]), own: [[word], pattern(word)],
      others: others.length ? [others, anyOf(others)] : null,
    };
  };
  const LONGEST = Math.max(1, ...[...names.keys()].map((name) => name.split(" ").length));

  /* The words of a query; a name of several words is one. */
  const wordsOf = (query) => {
    const tokens = clean(query).split(/\s+/), words = [];
    while (tokens.length) {
      let length = Math.min(LONGEST, tokens.length);
      while (length > 1 && !names.has(tokens.slice(0, length).join(" "))) length -= 1;
      words.push(tokens.splice(0, length).join(" "));
    }
    return [...new Set(words.filter((word) => /[\p{L}\p{N}]/u.test(word)))];
  };

  const count = (text, expression) => (text.match(expression) || []).length;

  /* A run of Chinese cut into the longest parts that are somewhere: 交叉熵 + 损失. */
  const cut = (word) => {
    if (!HAN_RUN.test(word)) return [word];
    const parts = [];
    for (let start = 0; start < word.length;) {
      let end = word.length;
      while (end - start >= 2 && !isKnown(word.slice(start, end))) end -= 1;
      if (end - start < 2) return [word];
      parts.push(word.slice(start, end));
      start = end;
    }
    return parts;
  };
  const isKnown = (word) => names.has(word) || isSomewhere(pattern(word));
  const isSomewhere = (expression) => SEARCH_DATA.some((entry) => entry.slice(2).some((text) => count(text, expression)));

  const scoreOf = (entry, words, expression) => {
    const [, , title, heading, text, code] = entry;
    let score = 0;
    if (count(heading, expression)) {
      const bare = clean(heading).replace(/^[\d.]+\s+|[（(].*$/gu, "").trim();
      score += words.includes(bare) ? WEIGHT.exact : WEIGHT.heading;
    }
    if (title !== heading && count(title, expression)) score += WEIGHT.title;
    score += WEIGHT.text * Math.log2(1 + count(text, expression));
    score += WEIGHT.code * Math.log2(1 + count(code, expression));
    return score;
  };

  /* Another name of the thing counts for less than the one that was asked for. */
  const scoreOfPart = (entry, { own, others }) =>
    scoreOf(entry, ...own) + (others ? WEIGHT.name * scoreOf(entry, ...others) : 0);

  const search = (query) => {
    const parts = wordsOf(query).flatMap((word) => (isKnown(word) ? [word] : word.match(RUNS).flatMap(cut)))
      .map(partOf);
    if (!parts.length) return { hits: [], marks: [], words: [] };
    const scored = SEARCH_DATA.map((entry) => ({ entry, scores: parts.map((part) => scoreOfPart(entry, part)) }));
    const total = (scores) => scores.reduce((a, b) => a + b, 0);
    const hits = scored.filter(({ scores }) => scores.every((score) => score > 0))
      .map(({ entry, scores }) => ({ entry, score: total(scores) }));
    if (hits.length < FEW && parts.length > 1) { /* then sections with some of it, of pages that hold all of it */
      const held = {};
      for (const { entry: [page], scores } of scored) {
        held[page] = (held[page] || parts.map(() => 0)).map((score, i) => score + scores[i]);
      }
      for (const { entry, scores } of scored) {
        if (total(scores) > 0 && scores.includes(0) && held[entry[0]].every((score) => score > 0)) {
          hits.push({ entry, score: total(scores) * WEIGHT.part });
        }
      }
    }
    if (parts.length > 1) {
      const phrase = new RegExp(parts.map((part) => part.expression.source).join("\\s*"), "giu");
      for (const hit of hits) if (hit.entry.slice(2).some((text) => count(text, phrase))) hit.score += WEIGHT.phrase;
    }
    hits.sort((a, b) => b.score - a.score);
    const said = clean(query).split(/\s+/), also = parts.flatMap((part) => part.words).filter((word) => !word.includes(" "));
    return { hits, marks: parts.map((part) => part.expression), words: [...new Set([...said, ...also])] };
  };

  /* The text as nodes, with every match inside a <mark>. */
  const marked = (text, marks) => {
    const all = new RegExp(marks.map((mark) => mark.source).join("|"), "giu");
    const nodes = [];
    let end = 0;
    for (const match of text.matchAll(all)) {
      const mark = document.createElement("mark");
      mark.textContent = match[0];
      nodes.push(text.slice(end, match.index), mark);
      end = match.index + match[0].length;
    }
    return [...nodes, text.slice(end)];
  };

  /* The stretch of text around the place where most of the query comes together. */
  const snippet = ([, , , , text, code], marks) => {
    const source = marks.some((mark) => count(text, mark)) ? text : code;
    const places = marks.flatMap((mark) => Array.from(source.matchAll(mark), (match) => match.index)).sort((a, b) => a - b);
    if (!places.length) return [source.slice(0, 2 * AROUND) + (source.length > 2 * AROUND ? "…" : "")];
    const near = (place) => places.filter((other) => other >= place && other < place + 2 * AROUND).length;
    const best = places.reduce((a, b) => (near(b) > near(a) ? b : a));
    const start = Math.max(0, best - AROUND), stop = Math.min(source.length, best + 2 * AROUND);
    return [start ? "…" : "", ...marked(source.slice(start, stop), marks), stop < source.length ? "…" : ""];
  };

  const shown = (hit, marks, words) => {
    const [page, anchor, title, heading] = hit.entry;
    const item = document.createElement("li");
    const link = item.appendChild(document.createElement("a"));
    link.href = page + (anchor ? `#${anchor}` : "");
    link.append(...marked(heading, marks));
    link.addEventListener("click", () => localStorage.setItem("sphinx_highlight_terms", words.join(" ")));
    if (title !== heading) item.appendChild(document.createElement("small")).textContent = title;
    item.appendChild(document.createElement("p")).append(...snippet(hit.entry, marks));
    return item;
  };

  const perform = (query, out) => {
    const { hits, marks, words } = search(query);
    const ofPage = {};
    const chosen = hits.filter(({ entry: [page] }) => (ofPage[page] = (ofPage[page] || 0) + 1) <= OF_A_PAGE).slice(0, SHOWN);
    const status = document.createElement("p");
    status.setAttribute("role", "status");
    status.textContent = !clean(query) ? "" : hits.length
      ? `找到 ${hits.length} 处` + (chosen.length < hits.length ? `，列出最相关的 ${chosen.length} 处（每页至多 ${OF_A_PAGE} 处）` : "")
      : `书里没有“${query.trim()}”。换一个词，或少写几个字试试。`;
    const list = document.createElement("ol");
    list.append(...chosen.map((hit) => shown(hit, marks, words)));
    out.replaceChildren(status, list);
  };

  const out = document.getElementById("search-results");
  const given = new URLSearchParams(location.search).get("q") || "";
  const inputs = document.querySelectorAll("input[name='q']");
  for (const input of inputs) {
    input.value = given;
    input.addEventListener("input", () => {
      perform(input.value, out);
      history.replaceState(null, "", `?q=${encodeURIComponent(input.value)}`);
    });
  }
  perform(given, out);
})();
