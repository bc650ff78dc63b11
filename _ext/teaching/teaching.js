/* Quizzes to try, folds that open for whom they hide something from: see teaching.py. */
"use strict";

(() => {
  const made = (name, attributes, ...children) => {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  };

  /* What was chosen is kept in this browser until the reader clears it on the first page. */
  const KEY = `quiz:${location.pathname}`;
  const chosen = () => {
    try {
      const kept = JSON.parse(localStorage.getItem(KEY));
      return Array.isArray(kept) ? kept : [];
    } catch { return []; }
  };

  /* An option gets a button over all of it, and below it room for its explanation. */
  const offer = (option, reason, id) => {
    const right = reason.classList.contains("quiz-right");
    const words = made("div", { class: "quiz-words", id }, ...option.childNodes);
    const first = document.createTreeWalker(reason, NodeFilter.SHOW_TEXT).nextNode();
    first.data = first.data.replace(/^\s*[A-H] [✓✗]\s*/u, "");
    const sign = made("strong", {}, right ? "✓ 对。" : "✗ 不对。");
    const why = made("div", { class: "quiz-why", hidden: "" }, sign, ...reason.childNodes);
    const button = made("button", { type: "button", "aria-labelledby": id, "aria-expanded": "false" });
    const choose = () => {
      button.setAttribute("aria-expanded", "true");
      option.classList.add(right ? "quiz-right" : "quiz-wrong");
      why.hidden = false;
    };
    if (chosen().includes(id)) choose(); /* on an earlier visit */
    button.addEventListener("click", () => {
      choose();
      try { localStorage.setItem(KEY, JSON.stringify([...new Set([...chosen(), id])])); } catch { /* it is not kept */ }
    });
    option.append(made("div", { class: "quiz-choice" }, words, button), made("div", { role: "status" }, why));
  };

  document.querySelectorAll(".quiz").forEach((quiz, number) => {
    const options = quiz.querySelectorAll(".quiz-options > li"), reasons = quiz.querySelectorAll(".quiz-reasons > li");
    options.forEach((option, i) => offer(option, reasons[i], `quiz-${number}-${i}`));
    quiz.querySelector("details").remove();
    quiz.classList.add("quiz-live");
  });

  const reveal = (element) => {
    for (let one = element.closest("details"); one; one = one.parentElement.closest("details")) one.open = true;
  };

  /* The place that the address names: what hides it opens, and so does what it is the heading of. */
  const arrive = () => {
    const place = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!place) return;
    const inside = place.querySelector(":scope > details.optional");
    if (!inside && !place.closest("details")) return;
    if (inside) inside.open = true;
    reveal(place);
    place.scrollIntoView();
  };
  window.addEventListener("hashchange", arrive);
  window.addEventListener("load", () => {
    document.querySelectorAll("span.highlighted").forEach(reveal); /* what the search has marked */
    arrive();
  });

  /* On paper nothing can be opened. */
  let opened = [];
  window.addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details.optional:not([open])")];
    for (const one of opened) one.open = true;
  });
  window.addEventListener("afterprint", () => opened.forEach((one) => { one.open = false; }));

  /* A drawing wider than the screen can be moved with the keyboard, too. */
  const frames = document.querySelectorAll(".drawing-frame");
  const measure = () => frames.forEach((frame) => {
    if (frame.scrollWidth > frame.clientWidth) frame.tabIndex = 0; else frame.removeAttribute("tabindex");
  });
  window.addEventListener("resize", measure);
  measure();
})();
