// The network, in a thread of its own so that the page stays responsive.
import type * as Ort from "onnxruntime-web";
import { feed, planes, rgb } from "./recipe.js";
import type { Site } from "./site.js";

export type Question = { site: Site } | { picture?: ImageBitmap; channel?: number };

export interface Answer {
  backend: string;
  milliseconds: number;
  /** What the network saw, RGBA. */
  photograph: Uint8ClampedArray;
  x: Float32Array;
  scores: Float32Array;
  y: Float32Array;
  /** How many channels y has; the rest of it are positions. */
  channels: number;
  /** By variant: R, G and B. */
  xHats: Record<string, Float32Array[]>;
}

export type Reply = { answer: Answer } | { opened: string } | { error: string };

let site: Site;
let ort: typeof Ort;
let session: Ort.InferenceSession;
let backend: "webgpu" | "wasm";
let seen: Pick<Answer, "photograph" | "x">;

async function open(provider: "webgpu" | "wasm"): Promise<void> {
  const folder = new URL("./ort/", import.meta.url).href;
  ort = (await import(`${folder}ort.${provider}.min.mjs`)) as typeof Ort;
  ort.env.wasm.wasmPaths = folder;
  ort.env.logLevel = "error";
  const model = new URL(site.model, import.meta.url).href;
  session = await ort.InferenceSession.create(model, { executionProviders: [provider] });
  backend = provider;
}

async function start(given: Site): Promise<string> {
  site = given;
  const gpu = (navigator as { gpu?: { requestAdapter(): Promise<unknown> } }).gpu;
  const adapter = await gpu?.requestAdapter().catch(() => null);
  if (adapter) await open("webgpu").catch(() => open("wasm"));
  else await open("wasm");
  return description();
}

function description(): string {
  if (backend === "webgpu") return "WebGPU";
  const threads = ort.env.wasm.numThreads ?? 1;
  return `WebAssembly, ${threads} ${threads === 1 ? "thread" : "threads"}`;
}

async function explain(picture?: ImageBitmap, channel?: number): Promise<Answer> {
  if (picture) seen = look(picture);
  const started = performance.now();
  const [height, width] = site.recipe.size;
  const asked = BigInt64Array.from(channel === undefined ? [] : [BigInt(channel)]);
  const given = {
    [site.input]: new ort.Tensor("float32", seen.x, [1, site.recipe.channels.length, height, width]),
    class: new ort.Tensor("int64", asked, [asked.length]),
  };
  const found = await session.run(given);
  const floats = (name: string) => found[name].data as Float32Array;
  const xHats = site.variants.map(({ name, output }) => [name, rgb(finite(floats(output), "x_hat"), site.recipe)] as const);
  return {
    ...seen,
    backend: description(),
    milliseconds: performance.now() - started,
    scores: floats(site.scores),
    y: finite(floats(site.at), "y"),
    channels: found[site.at].dims[1],
    xHats: Object.fromEntries(xHats),
  };
}

/** The same numbers, none of which is NaN or infinite: nothing could be drawn of those. */
function finite(values: Float32Array, what: string): Float32Array {
  const wrong = values.filter((value) => !Number.isFinite(value)).length;
  if (wrong) throw new Error(`${what} holds ${wrong} numbers that are NaN or infinite`);
  return values;
}

/** What the network sees of a picture; transparency on white. */
function look(picture: ImageBitmap): Pick<Answer, "photograph" | "x"> {
  const { width, height } = picture;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true })!;
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(picture, 0, 0);
  picture.close();
  const pixels = planes(context.getImageData(0, 0, width, height), site.recipe);
  const [red, green = red, blue = red] = pixels;
  const photograph = new Uint8ClampedArray(4 * red.length);
  red.forEach((r, i) => photograph.set([r, green[i], blue[i], 255], 4 * i));
  return { photograph, x: feed(pixels, site.recipe) };
}

async function reply(question: Question): Promise<Reply> {
  try {
    if ("site" in question) return { opened: await start(question.site) };
    try {
      return { answer: await explain(question.picture, question.channel) };
    } catch (error) {
      if (backend !== "webgpu") throw error;
      await open("wasm"); // an operator or a size that the graphics card does not take shows only now
      return { answer: await explain(undefined, question.channel) };
    }
  } catch (error) {
    return { error: error instanceof Error ? error.message : String(error) };
  }
}

let last: Promise<void> = Promise.resolve();
self.onmessage = ({ data }: MessageEvent<Question>) => {
  last = last.then(async () => self.postMessage(await reply(data)));
};
