/* What both workers begin with: answers to messages, a softmax, and a figure's files, fetched beside the page and kept. */
"use strict";

const CACHE = "live-models";

class Failure extends Error {
  constructor(code, file) { super(code); this.code = code; this.file = file; }
}

/* Answers messages: `load` first, then the tasks of a worker. What goes wrong is said in a word that the page knows. */
function listen(tasks) {
  onmessage = async ({ data }) => {
    try {
      await tasks[data.task](data);
    } catch (error) {
      const memory = error instanceof RangeError || /memory|allocat/i.test(String(error && error.message));
      postMessage({ said: "failed", id: data.id, code: error.code || (memory ? "memory" : "model"), file: error.file || "" });
      if (!error.code) console.warn("live:", error);
    }
  };
}

/* Probabilities (n,) of logits (n,). */
function softmax(logits, temperature = 1) {
  let top = -Infinity;
  for (const one of logits) top = Math.max(top, one);
  const shares = new Float64Array(logits.length);
  let sum = 0;
  for (let i = 0; i < shares.length; i++) sum += shares[i] = Math.exp((logits[i] - top) / temperature);
  for (let i = 0; i < shares.length; i++) shares[i] /= sum;
  return shares;
}

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
  if (cache) await cache.put(address, new Response(content)).catch(() => {}); // a full disk costs only the next visit
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

/* The content of all files by their role; *progress* is told to the page as it goes. */
async function contents(files) {
  let cache = null;
  try { cache = await caches.open(CACHE); } catch { /* no secure address: the browser's own cache has to do */ }
  const total = files.flatMap((file) => file.parts).reduce((sum, one) => sum + one.bytes, 0);
  let loaded = 0;
  const progress = (bytes) => { loaded += bytes; postMessage({ said: "progress", loaded, total }); };
  const content = {};
  for (const file of files) content[file.role] = await whole(file, cache, progress);
  postMessage({ said: "starting" });
  if (cache) await forgetOld(cache, files);
  return content;
}

/* Drop what an earlier edition of the same files left. */
async function forgetOld(cache, files) {
  const now = new Set(files.flatMap((file) => file.parts.map((one) => new URL(one.address, location.href).href)));
  const paths = new Set([...now].map((address) => address.split("?")[0]));
  for (const request of await cache.keys()) {
    if (!now.has(request.url) && paths.has(request.url.split("?")[0])) await cache.delete(request);
  }
}
