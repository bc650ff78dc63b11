/* Runs a model beside the page: fetches its files, keeps them, answers. A classic worker, one thread, no server. */
"use strict";

importScripts("wordpiece.js");

const CACHE = "live-models";
const BATCH = 8; // texts at once where one token after another is covered
let tokenizer, session, model;
let newest = 0;

class Failure extends Error {
  constructor(code, file) { super(code); this.code = code; this.file = file; }
}

onmessage = async ({ data }) => {
  try {
    if (data.task === "load") await load(data);
    else { newest = data.id; await TASKS[data.task](data); }
  } catch (error) {
    const memory = error instanceof RangeError || /memory|allocat/i.test(String(error && error.message));
    postMessage({ said: "failed", id: data.id, code: error.code || (memory ? "memory" : "model"), file: error.file || "" });
    if (!error.code) console.warn("live:", error);
  }
};

/* --- files --------------------------------------------------------------------------------------------- */

/* One part of a file, from the cache or the site. The address carries what the part's content is. */
async function part(one, cache, progress) {
  const address = new URL(one.address, location.href).href;
  const name = one.address.split("/").pop().split("?")[0];
  const kept = cache && await cache.match(address).catch(() => null);
  if (kept) {
    const content = new Uint8Array(await kept.arrayBuffer());
    if (content.length) { progress(one.bytes); return content; }
  }
  let answer;
  try {
    answer = await fetch(address);
  } catch {
    throw new Failure("offline", name);
  }
  if (!answer.ok) throw new Failure("missing", name);
  const pieces = [];
  let length = 0;
  try {
    const reader = answer.body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      pieces.push(value);
      length += value.length;
      progress(Math.min(value.length, one.bytes));
    }
  } catch {
    throw new Failure("offline", name);
  }
  const content = new Uint8Array(length);
  let at = 0;
  for (const piece of pieces) { content.set(piece, at); at += piece.length; }
  if (cache) cache.put(address, new Response(content)).catch(() => {}); // a full disk costs only the next visit
  return content;
}

async function whole(file, cache, progress) {
  const parts = [];
  for (const one of file.parts) parts.push(await part(one, cache, progress));
  const broken = async () => {
    for (const one of file.parts) if (cache) await cache.delete(new URL(one.address, location.href).href);
    throw new Failure("cut", file.name);
  };
  let content = parts.length === 1 ? parts[0] : new Uint8Array(await new Blob(parts).arrayBuffer());
  if (file.packed && content[0] === 0x1f && content[1] === 0x8b) { // some servers unpack what ends in .gz themselves
    try {
      const unpacked = new Blob([content]).stream().pipeThrough(new DecompressionStream("gzip"));
      content = new Uint8Array(await new Response(unpacked).arrayBuffer());
    } catch {
      await broken();
    }
  }
  if (content.length !== file.bytes) await broken();
  return content;
}

async function load({ files, runtime }) {
  let cache = null;
  try { cache = await caches.open(CACHE); } catch { /* no secure address: the browser's own cache has to do */ }
  const total = files.flatMap((file) => file.parts).reduce((sum, one) => sum + one.bytes, 0);
  let loaded = 0;
  const progress = (bytes) => { loaded += bytes; postMessage({ said: "progress", loaded, total }); };
  const content = {};
  for (const file of files) content[file.role] = await whole(file, cache, progress);
  postMessage({ said: "starting" });
  const text = (bytes) => new TextDecoder().decode(bytes);
  model = JSON.parse(text(content.card));
  tokenizer = new WordPiece(JSON.parse(text(content.tokenizer)));
  try { importScripts(runtime.script); } catch { throw new Failure("missing", "ort.wasm.min.js"); }
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.proxy = false;
  ort.env.wasm.wasmPaths = { mjs: new URL(runtime.loader, location.href).href };
  ort.env.wasm.wasmBinary = content.runtime;
  session = await ort.InferenceSession.create(content.model, { executionProviders: ["wasm"] });
  if (cache) await forgetOld(cache, files);
  postMessage({ said: "ready" });
}

/* Drop what an earlier edition of the same files left. */
async function forgetOld(cache, files) {
  const now = new Set(files.flatMap((file) => file.parts.map((one) => new URL(one.address, location.href).href)));
  const paths = new Set([...now].map((address) => address.split("?")[0]));
  for (const request of await cache.keys()) {
    if (!now.has(request.url) && paths.has(request.url.split("?")[0])) await cache.delete(request);
  }
}

/* --- answers ------------------------------------------------------------------------------------------- */

const TASKS = { classify };

function encode(text, most) {
  const { tokens, unknown } = tokenizer.tokenize(text);
  const room = Math.min(model.max_length, most || Infinity) - 2;
  const kept = tokens.slice(0, room);
  const ids = ["[CLS]", ...kept, "[SEP]"].map((name) => tokenizer.id(name));
  return { tokens: kept, ids, cut: tokens.length - kept.length, unknown };
}

/* Of rows of equal length: logits and, for the first row, attention. */
async function run(rows, wanted) {
  const dims = [rows.length, rows[0].length];
  const tensor = (fill) => {
    const numbers = new BigInt64Array(dims[0] * dims[1]);
    rows.forEach((row, i) => row.forEach((id, j) => { numbers[i * dims[1] + j] = fill(id); }));
    return new ort.Tensor("int64", numbers, dims);
  };
  const feeds = { input_ids: tensor((id) => BigInt(id)), attention_mask: tensor(() => 1n) };
  return session.run(feeds, wanted);
}

function softmax(logits) {
  const top = Math.max(...logits);
  const powers = Array.from(logits, (one) => Math.exp(one - top));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((one) => one / sum);
}

async function classify({ id, text, attention, explain, room }) {
  const began = performance.now();
  const { tokens, ids, cut, unknown } = encode(text, room);
  const output = await run([ids], attention ? ["logits", "attentions"] : ["logits"]);
  const probabilities = softmax(output.logits.data);
  const answer = { said: "answer", id, labels: model.labels, probabilities, tokens, cut, unknown, ids };
  if (attention) {
    answer.attention = { values: output.attentions.data.slice(), dims: output.attentions.dims };
  }
  answer.milliseconds = performance.now() - began;
  postMessage(answer);
  if (explain) await cover(id, ids, probabilities);
}

/* What the answer's probability loses where one token is covered by [MASK]. */
async function cover(id, ids, probabilities) {
  const best = probabilities.indexOf(Math.max(...probabilities));
  const mask = tokenizer.id("[MASK]");
  const places = ids.length - 2;
  const losses = [];
  for (let start = 1; start <= places; start += BATCH) {
    await new Promise((free) => setTimeout(free)); // a newer question may have come
    if (id !== newest) return;
    const rows = [];
    for (let place = start; place < Math.min(start + BATCH, places + 1); place++) {
      const row = ids.slice();
      row[place] = mask;
      rows.push(row);
    }
    const { logits } = await run(rows, ["logits"]);
    const labels = probabilities.length;
    rows.forEach((_, i) => {
      losses.push(probabilities[best] - softmax(logits.data.slice(i * labels, (i + 1) * labels))[best]);
    });
    postMessage({ said: "covered", id, losses: losses.slice(), places });
  }
}
