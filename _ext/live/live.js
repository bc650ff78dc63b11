/* Live figures: shows the form, runs the model in a worker on a click, and says in words what went wrong. See live.py. */
"use strict";

(() => {
  const SAYS = {
    file: "这里可以运行书里的模型，可是网页是从文件直接打开的，浏览器不许它载入模型。在书的文件夹里执行 make serve，打开它给出的地址，就能运行。",
    old: "这个浏览器运行不了模型：缺 WebAssembly SIMD 或别的新功能。换一个新一些的浏览器，别的内容照读不误。",
    offline: (file) => `没有下载成功（${file}）：网络断了，或者网站暂时打不开。连上以后再按一次。`,
    missing: (file) => `网站上缺一个文件（${file}），模型载入不了。`,
    cut: (file) => `下载的文件不完整（${file}）。再按一次，重新下载；仍然这样，就是网站上的文件坏了。`,
    memory: "内存不够，模型载入不了。关掉几个标签页，再按一次。",
    model: "模型没有算成。重新载入这一页再试；仍然这样，请告诉我们。",
    empty: "先写一句话。",
    busy: "上一次还没有算完，稍等。",
  };
  const SIMD = new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11]);
  const MAP = 24; // tokens that a map of attention has room for, [CLS] and [SEP] included
  const KNOBS = [ /* name, words, value, least, most, step */
    ["temperature", "温度", "0.8", 0, 2, "any"],
    ["topK", "top-k（0 不限）", "0", 0, 5740, "1"],
    ["topP", "top-p", "0.9", 0, 1, "any"],
    ["seed", "种子", "0", 0, 999999, "1"],
    ["length", "最多写", "60", 1, 200, "1"],
  ];
  const MOST = 2000; // letters that are read at all: far more than a model takes

  const made = (name, attributes, ...children) => {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  };
  const percent = (share) => `${(100 * share).toFixed(1)}%`;
  const megabytes = (bytes) => (bytes / 1e6).toFixed(1);

  const able = () => {
    try {
      return Boolean(window.Worker && window.DecompressionStream && WebAssembly.validate(SIMD));
    } catch {
      return false;
    }
  };

  /* Token as the reader sees it: without the mark of a word's later pieces. */
  const shown = (token) => token.replace(/^##/, "");

  /* A worker and its model. Figures of a page that need the same files share one. */
  class Engine {
    static of(files) {
      const key = JSON.stringify(files);
      if (!Engine.all.has(key)) Engine.all.set(key, new Engine(files));
      return Engine.all.get(key);
    }

    constructor(files) {
      Object.assign(this, { files, state: "cold", last: null, figures: [], count: 0 });
    }

    /* Those that wait: for the model while it is loading, then for an answer. */
    busy() { return this.figures.filter((one) => one.busy); }

    load() {
      if (this.state === "loading") {
        if (this.last) this.busy().forEach((one) => one.wait(this.last)); // the newcomer, too, sees how far it is
        return;
      }
      this.state = "loading";
      try { this.worker = new Worker(this.files.worker); } catch { return this.fail({ code: "old" }); } // a frame that allows none
      this.worker.onmessage = ({ data }) => this.hear(data);
      this.worker.onerror = (event) => { event.preventDefault(); this.fail({ code: "offline", file: this.files.worker.split("/").pop().split("?")[0] }); };
      const files = this.files.files.map((file) => ({
        ...file,
        parts: file.parts.map((one) => ({ ...one, address: new URL(one.address, location.href).href })),
      }));
      this.worker.postMessage({ task: "load", files, runtime: this.files.runtime });
    }

    /* Sends a task; its number, by which the answers find their figure. */
    ask(message) {
      this.worker.postMessage({ ...message, id: ++this.count });
      return this.count;
    }

    hear(data) {
      const figure = this.figures.find((one) => one.id === data.id); // none: an older question's
      if (data.said === "ready") {
        this.state = "ready";
        this.figures.forEach((one) => one.relabel());
        this.busy().forEach((one) => one.ready());
      } else if (data.said === "failed") {
        this.fail(data, figure);
      } else if (this.state === "loading") {
        this.last = data;
        this.busy().forEach((one) => one.wait(data));
      } else if (figure) {
        figure.take(data);
      }
    }

    /* The worker is of no more use: the next click starts another. */
    fail(data, owner) {
      if (this.worker) this.worker.terminate();
      this.state = "cold";
      this.last = null;
      for (const one of this.figures) {
        if (one.busy || one === owner) one.fail(data);
        one.leave();
      }
    }
  }
  Engine.all = new Map();

  class Figure {
    constructor(section) {
      this.section = section;
      this.kind = section.dataset.live;
      this.engine = Engine.of(JSON.parse(section.querySelector(".live-files").textContent));
      this.engine.figures.push(this);
      this.form = section.querySelector("form");
      this.field = section.querySelector("textarea");
      this.button = section.querySelector("button");
      this.bar = section.querySelector("progress");
      this.status = section.querySelector(".live-status");
      this.answer = section.querySelector(".live-answer");
      this.busy = false;
      this.id = 0; // of its latest question
      this.hurry = ""; // what a click meanwhile was told: it stays beside the progress
      section.querySelector(".live-none").remove();
      this.form.hidden = false;
      this.form.addEventListener("submit", (event) => { event.preventDefault(); this.start(); });
      this.field.addEventListener("keydown", (event) => {
        if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); this.start(); }
      });
    }

    say(words, kind = "") {
      this.words = words;
      this.status.textContent = this.hurry + words;
      this.status.className = `live-status ${kind}`;
    }

    start() {
      if (this.busy) { this.hurry = SAYS.busy; return this.say(this.words); }
      if (location.protocol === "file:") return this.say(SAYS.file, "live-wrong");
      if (!able()) return this.say(SAYS.old, "live-wrong");
      if (!this.field.value.trim()) { this.field.focus(); return this.say(SAYS.empty, "live-wrong"); }
      this.busy = true;
      this.button.setAttribute("aria-disabled", "true");
      if (this.engine.state === "ready") return this.ready();
      this.tenth = -1;
      this.say("正在下载模型……");
      this.engine.load();
    }

    wait(data) {
      if (data.said === "starting") return this.say("下载好了，正在载入……");
      this.bar.hidden = false;
      this.bar.max = data.total;
      this.bar.value = data.loaded;
      const tenth = Math.floor((10 * data.loaded) / data.total);
      if (tenth === this.tenth) return; // a screen reader hears ten steps, not a thousand
      this.tenth = tenth;
      this.say(`正在下载模型：${megabytes(data.loaded)} / ${megabytes(data.total)} MB`);
    }

    /* Nothing is left to download. */
    relabel() {
      this.button.textContent = this.button.textContent.replace(/（.*/, "");
      this.section.worker = this.engine.worker; // for tests and curious readers
      this.section.dataset.ready = "";
    }

    ready() {
      this.bar.hidden = true;
      this.ask();
    }

    send(message) { this.id = this.engine.ask(message); }

    finish() {
      this.busy = false;
      this.hurry = "";
      this.button.removeAttribute("aria-disabled");
      this.bar.hidden = true;
    }

    fail({ code, file }) {
      const words = SAYS[code] || SAYS.model;
      this.finish();
      this.say(typeof words === "function" ? words(file) : words, "live-wrong");
    }

    /* Nothing more will come of what is under way. */
    leave() {}

    /* What the model does not know of the text. */
    strangers({ unknown }) {
      if (!unknown.length) return "";
      const some = [...new Set(unknown)].slice(0, 8).map((word) => Array.from(word).slice(0, 12).join(""));
      return `不认识的有 ${unknown.length} 处（${some.join("、")}），都当作 [UNK]。`;
    }
  }

  class Classifier extends Figure {
    notes(data) {
      const cut = data.cut || this.cutBefore ? `太长，只读了前 ${data.tokens.length} 个词元，后面的没有读。` : "";
      return cut + this.strangers(data);
    }

    take(data) {
      if (data.said === "covered") this.covered(data);
      else if (this.kind === "attention") this.mapped(data);
      else this.answered(data);
    }

    ask() {
      this.say("正在算……");
      const text = Array.from(this.field.value).slice(0, MOST).join("");
      this.cutBefore = Array.from(this.field.value).length > MOST;
      const wanted = this.kind === "attention" ? { attention: true, room: MAP } : { explain: true };
      this.send({ task: "classify", figure: this.kind, text, ...wanted });
    }

    /* A table of who looks at whom, for the layer and the head that the reader chooses. */
    mapped(data) {
      const [layers, , heads, n] = data.attention.dims;
      const names = ["[CLS]", ...data.tokens.map(shown), "[SEP]"];
      const choice = (words, count) => {
        const options = Array.from({ length: count }, (_, i) => made("option", { value: i }, `${i + 1}`));
        const field = made("select", {}, ...options);
        field.addEventListener("change", () => draw());
        return [made("label", {}, `${words} `, field), field];
      };
      const [layerLabel, layer] = choice("层", layers);
      const [headLabel, which] = choice("头", heads);
      const head = (name, scope) => made("th", { scope }, name);
      const table = made("table", { class: "live-map" });
      const says = made("p", { class: "live-legend", role: "status" });
      const draw = () => {
        const start = (Number(layer.value) * heads + Number(which.value)) * n * n;
        const weight = (i, j) => data.attention.values[start + i * n + j];
        let best = [0, 0];
        const rows = names.map((name, i) => made("tr", {}, head(name, "row"), ...names.map((other, j) => {
          if (weight(i, j) > weight(...best)) best = [i, j];
          const hidden = made("span", { class: "live-hidden" }, percent(weight(i, j)));
          const cell = made("td", { title: `“${name}”看“${other}”：${percent(weight(i, j))}` }, hidden);
          cell.style.setProperty("--weight", `${Math.round(100 * weight(i, j))}%`);
          return cell;
        })));
        const title = `第 ${Number(layer.value) + 1} 层第 ${Number(which.value) + 1} 头：一行一个词元，颜色越深，看得越多；每行加起来是 1`;
        table.replaceChildren(
          made("caption", {}, title),
          made("thead", {}, made("tr", {}, made("td", {}), ...names.map((name) => head(name, "col")))),
          made("tbody", {}, ...rows),
        );
        const share = percent(weight(...best));
        says.textContent = `这个头里看得最专心的是“${names[best[0]]}”，${share} 给了“${names[best[1]]}”。`;
      };
      draw();
      const scroll = made("div", { class: "live-scroll", tabindex: "0", role: "group", "aria-label": "注意力图" }, table);
      this.answer.replaceChildren(made("p", { class: "live-do" }, layerLabel, " ", headLabel), scroll, says);
      this.answer.hidden = false;
      this.section.dataset.milliseconds = data.milliseconds.toFixed(1);
      this.finish();
      this.say(`${n} 个词元，${layers} 层，每层 ${heads} 个头。换一层、换一个头，看看有什么不同。${this.notes(data)}`);
      this.section.dataset.covered = String(this.id);
    }

    /* Probabilities, tokens; which of them mattered comes after. */
    answered(data) {
      const best = data.probabilities.indexOf(Math.max(...data.probabilities));
      const bars = data.labels.map((name, i) => {
        const share = data.probabilities[i];
        const bar = made("span", { class: "live-bar", "aria-hidden": "true" });
        bar.style.setProperty("--share", percent(share));
        return made("li", i === best ? { class: "live-best" } : {}, made("span", { class: "live-name" }, name), bar,
          made("span", { class: "live-share" }, percent(share)));
      });
      this.tokens = data.tokens.map((token) => made("li", {}, made("span", {}, shown(token))));
      this.legend = made("p", { class: "live-legend" }, "正在逐个遮住，看概率怎样变……");
      this.answer.replaceChildren(
        made("ul", { class: "live-bars", "aria-label": "各类的概率" }, ...bars),
        made("p", { class: "live-head" }, `它读到 ${data.tokens.length} 个词元`),
        made("ol", { class: "live-tokens", "aria-label": "词元" }, ...this.tokens),
        this.legend,
      );
      this.answer.hidden = false;
      this.label = data.labels[best];
      this.section.dataset.milliseconds = data.milliseconds.toFixed(1);
      this.finish();
      this.say(`判${this.label}，概率 ${percent(data.probabilities[best])}。${this.notes(data)}`);
      this.covering = data.tokens.length > 0;
      if (!this.covering) this.legend.textContent = "没有可读的字，上面只是模型对空白的回答。";
    }

    leave() {
      if (this.covering) this.legend.textContent = "没有遮完：模型停了。再按一次“运行”。";
      this.covering = false;
    }

    covered({ losses, places }) {
      const most = Math.max(0.02, ...losses.map(Math.abs));
      losses.forEach((loss, i) => {
        const token = this.tokens[i];
        token.style.setProperty("--weight", `${Math.round((70 * Math.abs(loss)) / most)}%`);
        token.className = loss >= 0 ? "live-for" : "live-against";
        const words = `遮住它，${this.label}的概率${loss >= 0 ? "降" : "升"} ${(100 * Math.abs(loss)).toFixed(1)} 个百分点`;
        token.title = words;
        token.setAttribute("aria-label", `${token.textContent}：${words}`);
      });
      if (losses.length < places) {
        this.legend.textContent = `正在逐个遮住，看概率怎样变：${losses.length} / ${places}`;
        return;
      }
      this.covering = false;
      const order = losses.map((loss, i) => [Math.abs(loss), i]).sort((a, b) => b[0] - a[0]).slice(0, 3);
      const named = order.filter(([size]) => size >= 0.001).map(([, i]) => {
        const sign = losses[i] >= 0 ? "−" : "+";
        return `“${this.tokens[i].textContent}”（${sign}${(100 * Math.abs(losses[i])).toFixed(1)} 个百分点）`;
      });
      this.legend.textContent = named.length
        ? `颜色越深，越要紧：实线的遮住以后，${this.label}的概率下降；虚线的遮住以后上升。最要紧的是${named.join("、")}。`
        : `逐个遮住，${this.label}的概率几乎不变：没有哪一个词元单独说了算。`;
      this.section.dataset.covered = String(this.id);
    }
  }

  /* A text that grows, and what else each of its tokens might have been. */
  class Writer extends Figure {
    constructor(section) {
      super(section);
      this.button.textContent = this.button.textContent.replace("运行", "续写");
      this.settings = {};
      const row = made("p", { class: "live-do live-settings" });
      for (const [name, words, value, least, most, step] of KNOBS) {
        const field = made("input", { type: "number", value, min: least, max: most, step, inputmode: "decimal" });
        this.settings[name] = field;
        row.append(made("label", {}, `${words} `, field), " ");
      }
      this.stop = made("button", { type: "button", hidden: "" }, "停下");
      this.stop.addEventListener("click", () => { this.engine.worker.postMessage({ task: "stop" }); this.button.focus(); });
      this.button.before(row);
      this.button.after(" ", this.stop);
    }

    ask() {
      const asked = {};
      for (const [name, words, , least, most, step] of KNOBS) {
        const field = this.settings[name];
        const value = Number(field.value);
        if (field.value === "" || !(value >= least && value <= most) || (step === "1" && !Number.isInteger(value))) {
          this.finish();
          field.focus();
          return this.say(`“${words}”要填 ${least} 到 ${most} 的${step === "1" ? "整数" : "数"}。`, "live-wrong");
        }
        asked[name] = value;
      }
      this.steps = [];
      const letters = Array.from(this.field.value);
      this.cutBefore = letters.length > MOST;
      this.begun = letters.slice(-30).join("");
      this.text = made("ol", { class: "live-tokens", "aria-label": "写出来的词元，逐个可选" });
      this.rivals = made("div", { class: "live-rivals", role: "status" });
      this.answer.replaceChildren(
        this.lead = made("p", { class: "live-lead" }), this.text,
        made("p", { class: "live-legend" }, "每一步都有别的候选：点一个字，或者用 Tab 和回车选它，就看得见。"), this.rivals,
      );
      this.answer.hidden = false;
      this.stop.hidden = false;
      this.say("正在读开头……");
      this.send({ task: "write", text: letters.slice(-MOST).join(""), ...asked });
    }

    take(data) {
      if (data.said === "read") {
        const cut = data.cut || this.cutBefore ? `开头太长，只读了最后 ${data.tokens.length} 个词元。` : "";
        this.noted = cut + this.strangers(data);
        this.say(`正在写……${this.noted}`);
      } else if (data.said === "step") {
        this.step(data);
      } else {
        this.stop.hidden = true;
        this.section.dataset.speed = (data.speed || 0).toFixed(1);
        const why = { end: "它自己写了结尾", length: "写够了长度", stopped: "停下了" }[data.why];
        const speed = data.speed ? `，每秒 ${data.speed.toFixed(0)} 个词元` : "";
        this.finish();
        this.section.dataset.done = String(this.id);
        this.say(`${why}：${this.steps.length} 个词元${speed}。${this.noted || ""}`);
      }
    }

    step(data) {
      const number = this.steps.push(data) - 1;
      const share = data.rivals.find((one) => one.name === data.token).plain;
      const words = data.end ? "（完）" : shown(data.token);
      const button = made("button", { type: "button", "aria-pressed": "false",
        "aria-label": `第 ${number + 1} 个词元“${words}”，概率 ${percent(share)}` }, words);
      button.style.setProperty("--weight", `${Math.round(45 * (1 - share))}%`);
      for (const kind of ["click", "focus", "pointerenter"]) button.addEventListener(kind, () => this.show(number));
      this.text.append(made("li", {}, button));
      this.lead.textContent = `${this.begun}${this.written()}`;
    }

    written() { return this.steps.filter((one) => !one.end).map((one) => shown(one.token)).join(""); }

    show(number) {
      const { rivals, token, left } = this.steps[number];
      this.text.querySelectorAll("button").forEach((one, i) => one.setAttribute("aria-pressed", String(i === number)));
      const rows = rivals.map((one) => {
        const bar = made("span", { class: "live-bar", "aria-hidden": "true" });
        bar.style.setProperty("--share", percent(one.plain));
        const name = one.name === "[SEP]" ? "（完）" : shown(one.name);
        return made("tr", one.name === token ? { class: "live-best" } : {}, made("th", { scope: "row" }, name),
          made("td", { class: "live-share" }, percent(one.plain)), made("td", { class: "live-wide" }, bar),
          made("td", { class: "live-share" }, one.chance ? percent(one.chance) : "去掉了"));
      });
      const names = ["候选", "模型给的概率", "", "抽签时的概率"].map((name) => made(name ? "th" : "td", name ? { scope: "col" } : {}, name));
      this.rivals.replaceChildren(made("table", { class: "live-steps" },
        made("caption", {}, `第 ${number + 1} 步，写下的是“${token === "[SEP]" ? "（完）" : shown(token)}”；参加抽签的有 ${left} 个`),
        made("thead", {}, made("tr", {}, ...names)), made("tbody", {}, ...rows)));
    }

    fail(data) {
      super.fail(data);
      this.stop.hidden = true;
    }
  }

  const KINDS = { classifier: Classifier, attention: Classifier, writer: Writer };
  document.querySelectorAll(".live").forEach((section) => {
    if (location.protocol === "file:") section.querySelector(".live-none").textContent = SAYS.file;
    else new KINDS[section.dataset.live](section);
  });
})();
