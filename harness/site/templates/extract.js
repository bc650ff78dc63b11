() => {
  const article = document.querySelector('article').cloneNode(true);
  article.querySelectorAll('script, style, button, .screen-only, .headerlink, .copybtn, mjx-container > :not(mjx-assistive-mml)')
    .forEach(one => one.remove());
  article.querySelectorAll('mjx-container').forEach(one => {
    const math = one.querySelector('math');
    if (one.getAttribute('display') === 'true') math.setAttribute('display', 'block');
    one.replaceWith(math);
  });
  article.querySelectorAll('pre.mermaid').forEach((one, i) => {
    const picture = document.createElement('img');
    picture.src = `diagram-${i}.png`;
    picture.alt = one.querySelector('svg title')?.textContent || '';
    one.replaceWith(picture);
  });
  article.querySelectorAll('svg.drawing').forEach(one => {
    const picture = document.createElement('img');
    picture.src = one.dataset.src;
    picture.alt = one.getAttribute('aria-label');
    one.replaceWith(picture);
  });
  article.querySelectorAll('details').forEach(one => {
    const box = document.createElement('div');
    box.className = 'folded';
    box.append(...one.childNodes);
    box.querySelectorAll(':scope > summary').forEach(summary => {
      const title = document.createElement('div');
      title.append(...summary.childNodes);
      summary.replaceWith(title);
    });
    one.replaceWith(box);
  });
  article.querySelectorAll('*').forEach(one => [...one.attributes].forEach(a => {
    if (/^(data-|on|aria-|tabindex|width$|height$|style$|role$|scope$|loading|align$)/.test(a.name)
        && !(a.name === 'width' && one.closest('svg'))) one.removeAttribute(a.name);
  }));
  return new XMLSerializer().serializeToString(article);
}
