/* Chapter 3's decoder, as mini-gpt-zh has it: RMSNorm, rotary positions, SwiGLU, one table for input and output.

   One token at a time, with the keys and values of those before kept. recipes/live_writer.py writes its file: a
   safetensors file whose matrices are int8, with a scale for each row. tests/harness/site/test_live.py compares it
   with transformers'. */
"use strict";

(function (home) {
  /* Tensors of a safetensors file by name; int8 matrices unfolded to float32 by their rows' scales. */
  function tensors(bytes) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const start = 8 + Number(view.getBigUint64(0, true));
    const described = JSON.parse(new TextDecoder().decode(bytes.subarray(8, start)));
    const raw = (name) => {
      const { dtype, data_offsets: [from, to] } = described[name];
      const content = bytes.slice(start + from, start + to).buffer; // at an address that any type may have
      return dtype === "I8" ? new Int8Array(content) : new Float32Array(content);
    };
    const found = {};
    for (const name of Object.keys(described)) {
      if (name === "__metadata__" || name.endsWith(".scale")) continue;
      const values = raw(name);
      if (described[name].dtype !== "I8") { found[name] = values; continue; }
      const scale = raw(`${name}.scale`);
      const columns = described[name].shape[1];
      found[name] = Float32Array.from(values, (value, i) => value * scale[Math.floor(i / columns)]);
    }
    return found;
  }

  /* out = W x, W (rows, columns) */
  function times(W, x, out) {
    const columns = x.length;
    for (let row = 0, at = 0; row < out.length; row++) {
      let a = 0, b = 0, c = 0, d = 0;
      for (let j = 0; j < columns; j += 4, at += 4) {
        a += W[at] * x[j];
        b += W[at + 1] * x[j + 1];
        c += W[at + 2] * x[j + 2];
        d += W[at + 3] * x[j + 3];
      }
      out[row] = a + b + c + d;
    }
    return out;
  }

  class Llama {
    constructor(config, bytes, context) {
      if (!config.tie_word_embeddings || config.hidden_size % 4 || config.intermediate_size % 4) throw new Error("config");
      Object.assign(this, { config, context, weights: tensors(bytes) });
      const { hidden_size: d, intermediate_size: wide, num_attention_heads: heads, num_hidden_layers: layers } = config;
      const vector = (n) => new Float32Array(n);
      Object.assign(this, { x: vector(d), normed: vector(d), q: vector(d), mixed: vector(d), added: vector(d) });
      Object.assign(this, { gate: vector(wide), up: vector(wide), logits: vector(config.vocab_size) });
      this.size = d / heads;
      this.frequencies = Float64Array.from({ length: this.size / 2 }, (_, i) => config.rope_theta ** (-2 * i / this.size));
      this.keys = Array.from({ length: layers }, () => vector(context * d));
      this.values = Array.from({ length: layers }, () => vector(context * d));
      this.scores = vector(context);
      this.length = 0;
    }

    forget() { this.length = 0; }

    norm(name) {
      const { x, normed, config } = this;
      const weight = this.weights[`model.${name}.weight`];
      let squares = 0;
      for (const one of x) squares += one * one;
      const scale = 1 / Math.sqrt(squares / x.length + config.rms_norm_eps);
      for (let i = 0; i < x.length; i++) normed[i] = x[i] * scale * weight[i];
    }

    /* Turn each head's halves by the place's angles. */
    turn(vector, place) {
      const half = this.size / 2;
      for (let head = 0; head < vector.length; head += this.size) {
        for (let i = 0; i < half; i++) {
          const angle = place * this.frequencies[i];
          const [sine, cosine, a, b] = [Math.sin(angle), Math.cos(angle), vector[head + i], vector[head + half + i]];
          vector[head + i] = a * cosine - b * sine;
          vector[head + half + i] = b * cosine + a * sine;
        }
      }
    }

    attend(layer, place) {
      const { q, mixed, scores, size } = this;
      const d = q.length;
      const [keys, values] = [this.keys[layer], this.values[layer]];
      mixed.fill(0);
      for (let head = 0; head < d; head += size) {
        let top = -Infinity;
        for (let t = 0; t <= place; t++) {
          let sum = 0;
          for (let i = head; i < head + size; i++) sum += q[i] * keys[t * d + i];
          scores[t] = sum / Math.sqrt(size);
          top = Math.max(top, scores[t]);
        }
        let total = 0;
        for (let t = 0; t <= place; t++) { scores[t] = Math.exp(scores[t] - top); total += scores[t]; }
        for (let t = 0; t <= place; t++) {
          const share = scores[t] / total;
          for (let i = head; i < head + size; i++) mixed[i] += share * values[t * d + i];
        }
      }
    }

    /* Read one token; the logits of the next, (vocab_size,), if they are wanted. */
    read(token, wanted = true) {
      if (this.length >= this.context) throw new RangeError("context");
      const { weights, x, normed, q, mixed, added, gate, up, config } = this;
      const place = this.length++;
      const d = x.length;
      const table = weights["model.embed_tokens.weight"];
      x.set(table.subarray(token * d, (token + 1) * d));
      for (let layer = 0; layer < config.num_hidden_layers; layer++) {
        const name = `layers.${layer}`;
        const matrix = (part) => weights[`model.${name}.${part}.weight`];
        this.norm(`${name}.input_layernorm`);
        times(matrix("self_attn.q_proj"), normed, q);
        const key = times(matrix("self_attn.k_proj"), normed, this.keys[layer].subarray(place * d, (place + 1) * d));
        times(matrix("self_attn.v_proj"), normed, this.values[layer].subarray(place * d, (place + 1) * d));
        this.turn(q, place);
        this.turn(key, place);
        this.attend(layer, place);
        times(matrix("self_attn.o_proj"), mixed, added);
        for (let i = 0; i < d; i++) x[i] += added[i];
        this.norm(`${name}.post_attention_layernorm`);
        times(matrix("mlp.gate_proj"), normed, gate);
        times(matrix("mlp.up_proj"), normed, up);
        for (let i = 0; i < gate.length; i++) gate[i] *= up[i] / (1 + Math.exp(-gate[i])); // silu(gate) * up
        times(matrix("mlp.down_proj"), gate, added);
        for (let i = 0; i < d; i++) x[i] += added[i];
      }
      if (!wanted) return null;
      this.norm("norm");
      return times(table, normed, this.logits);
    }
  }

  home.Llama = Llama;
})(self);
