// Mermaid as one classic script, with the kinds of diagram that KEPT names; see README.md.
//   node vendor/bundle.mjs PACKAGE      # the unpacked npm package mermaid; esbuild installed beside it
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";

const KEPT = ["flowDiagram", "sequenceDiagram", "classDiagram", "stateDiagram", "timeline", "dagre", "sizeCapture"];
const source = path.resolve(process.argv[2]);
const { build } = createRequire(path.join(source, "package.json"))("esbuild");

const onlyKept = {
  name: "only-kept",
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /.*/ }, ({ kind, path: name }) => {
      const kept = KEPT.some((one) => path.basename(name).startsWith(one));
      return kind === "dynamic-import" && !kept ? { path: path.basename(name), namespace: "left-out" } : undefined;
    });
    onLoad({ filter: /.*/, namespace: "left-out" }, ({ path: name }) => ({
      contents: `throw new Error("${name} is not in this bundle, see vendor/README.md")`,
    }));
  },
};

await build({
  stdin: { contents: 'import mermaid from "./dist/mermaid.esm.min.mjs"; globalThis.mermaid = mermaid;', resolveDir: source },
  bundle: true,
  minify: true,
  format: "iife",
  target: "es2022",
  legalComments: "inline",
  plugins: [onlyKept],
  outfile: fileURLToPath(new URL("mermaid/mermaid.min.js", import.meta.url)),
});
