/* Runs a classifier beside the page. A classic worker, one thread, no server. */
"use strict";

importScripts(...["files.js", "wordpiece.js"].map((name) => name + location.search)); // of one edition

const BATCH = 8; // texts at once where one token after another is covered
let tokenizer, session, model;
const newest = {}; // question of each figure

listen({
  load,
  classify: async (data) => { newest[data.figure] = data.id; await classify(data); },
});

async function load({ files, runtime }) {
  const content = await contents(files);
  const text = (bytes) => new TextDecoder().decode(bytes);
  model = JSON.parse(text(content.card));
  tokenizer = new WordPiece(JSON.parse(text(content.tokenizer)));
  try { importScripts(runtime.script); } catch { throw new Failure("offline", "ort.wasm.min.js"); }
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.proxy = false;
  ort.env.wasm.wasmPaths = { mjs: new URL(runtime.loader, location.href).href };
  ort.env.wasm.wasmBinary = content.runtime;
  session = await ort.InferenceSession.create(content.model, { executionProviders: ["wasm"] });
  postMessage({ said: "ready" });
}

/* --- answers ------------------------------------------------------------------------------------------- */

function encode(text, most) {
  const read = tokenizer.tokenize(text, 0, Math.min(model.max_length, most || Infinity) - 2);
  return { ...read, ids: ["[CLS]", ...read.tokens, "[SEP]"].map((name) => tokenizer.id(name)) };
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

async function classify({ id, figure, text, attention, explain, room }) {
  const began = performance.now();
  const { tokens, ids, cut, unknown } = encode(text, room);
  const output = await run([ids], attention ? ["logits", "attentions"] : ["logits"]);
  const probabilities = Array.from(softmax(output.logits.data));
  const answer = { said: "answer", id, labels: model.labels, probabilities, tokens, cut, unknown, ids };
  if (attention) {
    answer.attention = { values: output.attentions.data.slice(), dims: output.attentions.dims };
  }
  answer.milliseconds = performance.now() - began;
  postMessage(answer);
  if (explain) await cover(id, figure, ids, probabilities);
}

/* What the answer's probability loses where one token is covered by [MASK]. */
async function cover(id, figure, ids, probabilities) {
  const best = probabilities.indexOf(Math.max(...probabilities));
  const mask = tokenizer.id("[MASK]");
  const places = ids.length - 2;
  const losses = [];
  for (let start = 1; start <= places; start += BATCH) {
    await new Promise((free) => setTimeout(free)); // a newer question may have come
    if (id !== newest[figure]) return;
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
