// Beside what tsc wrote: the page, and onnxruntime-web's two builds, of which a browser loads one.
import { copyFileSync, mkdirSync } from "node:fs";

mkdirSync("dist/ort", { recursive: true });
for (const file of ["index.html", "style.css"]) copyFileSync(file, `dist/${file}`);
for (const [build, wasm] of [["wasm", ""], ["webgpu", ".asyncify"]]) {
  const files = [`ort.${build}.min.mjs`, `ort-wasm-simd-threaded${wasm}.mjs`, `ort-wasm-simd-threaded${wasm}.wasm`];
  for (const file of files) copyFileSync(`node_modules/onnxruntime-web/dist/${file}`, `dist/ort/${file}`);
}
