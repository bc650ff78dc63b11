/* Chapter 3's decoder, as mini-gpt-zh has it: RMSNorm, rotary positions, SwiGLU, one table for input and output.

   One token at a time, with the keys and values of those before kept. recipes/live_writer.py writes its file: a
   safetensors file whose matrices are int8, with a scale for each row. tests/harness/site/test_live.py compares it
   with transformers'. */
"use strict";

(function (home) {
  /* What a safetensors file holds: the shape of each tensor by name, and its content. */
  function opened(bytes) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const start = 8 + Number(view.getBigUint64(0, true));
    const { __metadata__, ...tensors } = JSON.parse(new TextDecoder().decode(bytes.subarray(8, start)));
    const content = (name) => {
      const { dtype, data_offsets: [from, to] } = tensors[name];
      const raw = bytes.slice(start + from, start + to).buffer; // at an address that any type may have
      return dtype === "I8" ? new Int8Array(raw) : new Float32Array(raw);
    };
    return { tensors, content };
  }

  class Llama {
    constructor(config, bytes, context) {
      const { hidden_size: d, intermediate_size: wide, num_attention_heads: heads, num_hidden_layers: layers } = config;
      if (!config.tie_word_embeddings || d % 4 || wide % 4) throw new Error("config");
      const { tensors, content } = opened(bytes);
      const names = Object.keys(tensors).filter((name) => !name.endsWith(".scale"));
      const size = (name) => tensors[name].shape.reduce((a, b) => a * b);
      const vectors = { x: d, normed: d, q: d, mixed: d, added: d, gate: wide, up: wide, logits: config.vocab_size };
      const all = [...names.map(size), ...Object.values(vectors), 2 * layers * context * d];
      const room = new Room(all.reduce((a, b) => a + b));
      Object.assign(this, { config, context, room, weights: {} });
      for (const name of names) {
        const values = content(name);
        const scale = tensors[name].dtype === "I8" ? content(`${name}.scale`) : null; // one of each row
        const columns = tensors[name].shape.at(-1);
        const weights = this.weights[name] = room.vector(values.length);
        for (let i = 0; i < values.length; i++) weights[i] = values[i] * (scale ? scale[Math.floor(i / columns)] : 1);
      }
      for (const [name, count] of Object.entries(vectors)) this[name] = room.vector(count);
      this.keys = Array.from({ length: layers }, () => room.vector(context * d));
      this.values = Array.from({ length: layers }, () => room.vector(context * d));
      this.scores = new Float32Array(context);
      this.size = d / heads;
      this.frequencies = Float64Array.from({ length: this.size / 2 }, (_, i) => config.rope_theta ** (-2 * i / this.size));
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
      const times = (W, from, out) => this.room.times(W, from, out);
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
