/* Runs a language model beside the page: one token after another, each with its rivals. A classic worker, one thread. */
"use strict";

importScripts(...["files.js", "wordpiece.js", "product.js", "llama.js"].map((name) => name + location.search)); // of one edition

const RIVALS = 8; // candidates of a step that are told
let tokenizer, model, card;
let newest = 0;

listen({
  load,
  write: async (data) => { newest = data.id; await write(data); },
  stop: async () => { newest = 0; },
});

async function load({ files }) {
  const content = await contents(files);
  const text = (bytes) => new TextDecoder().decode(bytes);
  card = JSON.parse(text(content.card));
  tokenizer = new WordPiece(JSON.parse(text(content.tokenizer)));
  model = new Llama(card.config, content.model, card.context);
  postMessage({ said: "ready" });
}

/* Tokens, the most probable first. Sorted are numbers that end in their token: four times as fast as a comparison of
   tokens, which JavaScript would call. */
function ranked(logits) {
  const top = logits.reduce((a, b) => Math.max(a, b));
  const n = logits.length;
  const keys = Float64Array.from({ length: n }, (_, i) => Math.round((top - logits[i]) * 2 ** 30) * n + i).sort();
  return Array.from(keys, (key) => key % n);
}

/* Probabilities that are drawn from, as transformers' warpers make them: temperature, then top-k, then top-p. */
function tailored(logits, order, { temperature, topK, topP }) {
  const kept = new Float64Array(logits.length);
  if (temperature === 0) { kept[order[0]] = 1; return kept; }
  const all = softmax(logits, temperature);
  const few = Math.min(topK || order.length, order.length);
  let sum = 0;
  for (let place = 0; place < few; place++) sum += all[order[place]];
  let before = 0; // of those more probable
  for (let place = 0; place < few && (before < topP * sum || before === 0); place++) {
    kept[order[place]] = all[order[place]];
    before += all[order[place]];
  }
  for (let i = 0; i < kept.length; i++) kept[i] /= before;
  return kept;
}

/* mulberry32 of Tommy Ettinger (public domain): the same numbers for the same seed in every browser. */
function dice(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

function drawn(probabilities, order, number) {
  let sum = 0;
  for (const i of order) {
    sum += probabilities[i];
    if (number < sum) return i;
  }
  return order[0]; // rounding left nothing
}

async function write({ id, text, temperature, topK, topP, seed, length }) {
  const read = tokenizer.tokenize(text, length + 1 - card.context);
  postMessage({ said: "read", id, ...read });
  const random = dice(seed);
  const rest = () => new Promise((free) => setTimeout(free)); // so that a stop is heard
  model.forget();
  const ids = [card.config.bos_token_id, ...read.tokens.map((name) => tokenizer.id(name))];
  let logits;
  for (const [place, token] of ids.entries()) {
    logits = model.read(token, place === ids.length - 1);
    if (place % 16 === 15) { await rest(); if (id !== newest) return postMessage({ said: "done", id, why: "stopped" }); }
  }
  const began = performance.now();
  for (let step = 0; step < length; step++) {
    await rest();
    if (id !== newest) return postMessage({ said: "done", id, why: "stopped" });
    const order = ranked(logits);
    const plain = softmax(logits, 1);
    const chances = tailored(logits, order, { temperature, topK, topP });
    const token = drawn(chances, order, random());
    const told = order.slice(0, RIVALS);
    if (!told.includes(token)) told[RIVALS - 1] = token;
    const end = token === card.config.eos_token_id;
    postMessage({
      said: "step", id, token: tokenizer.names[token], end, left: chances.reduce((n, one) => n + (one > 0), 0),
      rivals: told.map((i) => ({ name: tokenizer.names[i], plain: plain[i], chance: chances[i] })),
    });
    if (end || step === length - 1) {
      const milliseconds = performance.now() - began;
      return postMessage({ said: "done", id, why: end ? "end" : "length", speed: (1000 * step) / milliseconds });
    }
    logits = model.read(token);
  }
}
