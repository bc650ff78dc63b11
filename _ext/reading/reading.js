/* Where the reader was, what they have read, a look at what a link names: see reading.py. Nothing leaves the browser. */
"use strict";

(() => {
  const root = new URL(document.documentElement.dataset.content_root || "./", location.href).href;
  const here = location.href.split("#")[0].slice(root.length) || "index.html";
  const KEY = `reading:${new URL(root).pathname}`;
  const made = (name, attributes, ...children) => {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  };

  /* -- what is kept: {read: {page: true}, last: {page, title, place, heading}} ---------------------- */

  const recall = () => {
    try {
      const kept = JSON.parse(localStorage.getItem(KEY)) || {};
      return { read: kept.read && typeof kept.read === "object" ? kept.read : {}, last: kept.last || null };
    } catch { return { read: {}, last: null }; } /* no storage, or not ours */
  };
  const keep = (change) => {
    try { localStorage.setItem(KEY, JSON.stringify({ ...recall(), ...change })); } catch { /* then not */ }
  };

  const article = document.querySelector(".bd-article");
  const isChapter = Boolean(article && article.querySelector(".reading-line"));
  const headings = article ? [...article.querySelectorAll("h1, h2, h3")] : [];

  const mark = () => {
    const { read } = recall();
    for (const link of document.querySelectorAll(".bd-links a.internal")) {
      const page = link.href.split("#")[0].slice(root.length);
      const old = link.querySelector(".reading-mark");
      if (read[page] && !old) {
        link.append(made("span", { class: "reading-mark", role: "img", "aria-label": "读过", title: "读过" }, "✓"));
      } else if (!read[page] && old) old.remove();
    }
  };

  const note = () => {
    let current = headings[0];
    for (const heading of headings) if (heading.getBoundingClientRect().top < innerHeight / 2) current = heading;
    const section = current && current.closest("section[id]");
    const words = (heading) => heading.firstChild.textContent.trim();
    keep({ last: {
      page: here, place: section && current !== headings[0] ? section.id : "",
      title: words(headings[0]), heading: current === headings[0] ? "" : words(current),
    } });
    if (article.getBoundingClientRect().bottom < innerHeight * 1.5 && !recall().read[here]) {
      keep({ read: { ...recall().read, [here]: true } });
      mark();
    }
  };

  if (isChapter && headings.length) {
    let waiting = 0;
    addEventListener("scroll", () => {
      clearTimeout(waiting);
      waiting = setTimeout(note, 300);
    }, { passive: true });
  }
  mark();

  /* -- the first page leads back -------------------------------------------------------------------- */

  const { read, last } = recall();
  if (here === "index.html" || here === "chapters/index.html") {
    const count = Object.keys(read).length;
    if (article && (last || count) && /^[\w./-]+$/.test(last ? last.page : "x.html")) {
      const box = made("p", { class: "reading-back" });
      if (last) {
        const link = made("a", { href: `${root}${last.page}${last.place ? `#${last.place}` : ""}` },
          `${last.title}${last.heading ? `，${last.heading}` : ""}`);
        box.append("上次读到：", link, "　");
      }
      if (count) box.append(`读完 ${count} 页。`);
      const clear = made("button", { type: "button", class: "reading-clear" }, "清除阅读记录");
      clear.addEventListener("click", () => {
        try {
          const below = new URL(root).pathname;
          for (const key of Object.keys(localStorage)) {
            if (key === KEY || key.startsWith(`quiz:${below}`)) localStorage.removeItem(key);
          }
        } catch { /* there is none */ }
        mark();
        box.replaceChildren("阅读记录已清除。记录只在这台机器的浏览器里，从不上传。");
        box.setAttribute("role", "status");
      });
      box.append(clear);
      const title = article.querySelector("h1");
      if (title) title.after(box);
    }
  }

  /* -- a look at what a link names ------------------------------------------------------------------ */

  const NAMED = /#(?:fig|tab|eq|ref)-|bibliography\.html#./;
  const pages = new Map([[here, Promise.resolve(document)]]);
  const page = (url) => {
    const name = url.split("#")[0].slice(root.length);
    if (!pages.has(name)) {
      pages.set(name, fetch(url.split("#")[0]).then((answer) => {
        if (!answer.ok) throw new Error(String(answer.status));
        return answer.text();
      }).then((text) => new DOMParser().parseFromString(text, "text/html")));
    }
    return pages.get(name);
  };

  /* A figure with its caption, a table with what stands above it, an equation, a source. */
  const copyOf = (target, url) => {
    const parts = [target];
    const next = target.nextElementSibling;
    if (target.matches("p.numbered") && next && (next.matches("table") || next.querySelector("table"))) parts.push(next);
    let outer = target;
    while (outer.parentElement && !outer.nextElementSibling && outer.closest(".cell")) outer = outer.parentElement;
    if (outer.nextElementSibling && outer.nextElementSibling.matches("p.numbered")) parts.push(outer.nextElementSibling);
    return parts.map((part) => {
      const copy = document.importNode(part, true);
      for (const one of [copy, ...copy.querySelectorAll("[id]")]) {
        if (!one.closest("svg")) one.removeAttribute("id"); /* a drawing's style goes by its own */
      }
      for (const one of copy.querySelectorAll("[src]")) one.setAttribute("src", new URL(one.getAttribute("src"), url).href);
      for (const one of copy.querySelectorAll("a")) one.replaceWith(...one.childNodes);
      return copy;
    });
  };

  let shown = null, timer = 0;
  const hide = () => {
    clearTimeout(timer);
    if (!shown) return;
    shown.link.removeAttribute("aria-describedby");
    shown.box.remove();
    shown = null;
  };
  const show = async (link) => {
    let target;
    try {
      target = (await page(link.href)).getElementById(decodeURIComponent(link.hash.slice(1)));
    } catch { return; } /* offline, or opened as a file: the link still leads there */
    if (!target || !link.matches(":hover, :focus")) return;
    hide();
    const box = made("div", { class: "reading-look", role: "tooltip", id: "reading-look" }, ...copyOf(target, link.href));
    document.body.append(box);
    if (window.MathJax && MathJax.typesetPromise && box.querySelector(".math")) {
      try { await MathJax.typesetPromise([box]); } catch { /* the formula then stands as its source */ }
    }
    const { left, top, bottom } = link.getBoundingClientRect();
    const width = Math.min(560, innerWidth - 16);
    box.style.width = `${width}px`;
    box.style.left = `${Math.max(8, Math.min(left, innerWidth - width - 8)) + scrollX}px`;
    const height = box.offsetHeight, below = bottom + height + 8 < innerHeight || top < height + 8;
    box.style.top = `${(below ? bottom + 6 : top - height - 6) + scrollY}px`;
    link.setAttribute("aria-describedby", "reading-look");
    shown = { link, box };
  };
  for (const link of article ? article.querySelectorAll("a[href]") : []) {
    if (!NAMED.test(link.href) || !link.href.startsWith(root) || link.closest("p.numbered")) continue;
    link.addEventListener("mouseenter", () => { clearTimeout(timer); timer = setTimeout(() => show(link), 200); });
    link.addEventListener("focus", () => show(link));
    link.addEventListener("mouseleave", hide);
    link.addEventListener("blur", hide);
  }
  addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
})();
