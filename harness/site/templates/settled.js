// A busy browser has scripts, pictures and paint outstanding when the network is long idle. What is printed then differs
// from run to run: so wait until every picture is decoded, no script is due, and the print's style has been painted.
async () => {
  await Promise.all([...document.images].map(one => {
    one.loading = 'eager';
    return one.decode().catch(() => {});
  }));
  await document.fonts.ready;
  for (let i = 0; i < 2; i++) {
    await new Promise(done => requestIdleCallback(done));
    await new Promise(done => requestAnimationFrame(done));
  }
}
