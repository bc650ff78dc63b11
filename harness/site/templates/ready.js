async () => {
  document.querySelectorAll('details').forEach(one => one.open = true);
  if (window.MathJax && MathJax.startup) await MathJax.startup.promise;
  await document.fonts.ready;
}
