// The page: what its controls do.
import { Camera } from "./camera.js";
import { strongest, type Guess } from "./classes.js";
import { Network } from "./network.js";
import { site, type Site } from "./site.js";
import { greyMap, overlay, toneMap } from "./tone.js";
import type { Answer } from "./worker.js";

const VIEWS = {
  tone: { title: "tone map", draw: (xHat: Float32Array[]) => toneMap(xHat) },
  saliency: { title: "saliency map", draw: (xHat: Float32Array[]) => greyMap(xHat) },
  overlay: {
    title: "saliency map over the picture",
    draw: (xHat: Float32Array[], photograph: Uint8ClampedArray) => overlay(xHat, photograph, strength.valueAsNumber),
  },
};

const choose = element("choose", HTMLButtonElement);
const file = element("file", HTMLInputElement);
const sample = element("sample", HTMLButtonElement);
const cameraButton = element("camera", HTMLButtonElement);
const live = element("live", HTMLInputElement);
const classes = element("class", HTMLSelectElement);
const strength = element("strength", HTMLInputElement);
const camera = new Camera(element("video", HTMLVideoElement));
const network = new Network();

let about: Site;
let shown: { answer: Answer; guess: Guess } | null = null;
let asked = 0;
let capturing = false;

function element<T extends HTMLElement>(id: string, kind: new () => T): T {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`no ${kind.name} '${id}'`);
  return found;
}

function say(text: string, busy = false): void {
  const status = element("status", HTMLParagraphElement);
  status.textContent = text;
  status.classList.toggle("busy", busy);
}

/** What went wrong, and what would work. */
function complain(text: string): void {
  const error = element("error", HTMLParagraphElement);
  error.textContent = text;
  error.hidden = !text;
  if (text) say("");
}

// ----- Pictures in -----

async function decode(blob: Blob): Promise<void> {
  const options: ImageBitmapOptions = { imageOrientation: "from-image", colorSpaceConversion: "none" };
  const mine = ++asked;
  complain("");
  say("Reading the picture", true);
  try {
    await look(await createImageBitmap(blob, options), mine);
  } catch {
    if (mine !== asked) return;
    complain("This file cannot be read as a picture. PNG, JPEG and WebP work in every browser.");
  }
}

async function look(picture: ImageBitmap, mine = ++asked): Promise<void> {
  await explain({ picture }, mine);
}

async function explain(question: { picture?: ImageBitmap; channel?: number }, mine: number): Promise<void> {
  say("Running the network", true);
  try {
    const answer = await network.explain(question);
    if (mine !== asked) return; // a newer question is on its way
    complain("");
    show(answer, question.channel);
  } catch (error) {
    if (mine !== asked) return;
    complain(`The network failed: ${(error as Error).message}. A reload starts it anew.`);
  }
}

// ----- Results out -----

function show(answer: Answer, channel?: number): void {
  const guesses = strongest(answer, about);
  const guess = guesses.find((each) => each.channel === channel) ?? guesses[0];
  classes.replaceChildren(
    ...guesses.map((each) => new Option(`${each.name}, ${each.chance}`, String(each.channel), false, each === guess)),
  );
  shown = { answer, guess };
  element("result", HTMLElement).hidden = false;
  element("backend", HTMLSpanElement).textContent = `onnxruntime-web (${answer.backend})`;
  draw();
  const best = guesses[0];
  const explained = guess === best ? "" : ` Explained: ${guess.name}, ${guess.chance}.`;
  say(`The network says: ${best.name}, ${best.chance}.${explained} ${(answer.milliseconds / 1000).toFixed(1)} s.`);
  document.dispatchEvent(new CustomEvent("explained", { detail: answer }));
}

function draw(): void {
  if (!shown) return;
  const { answer, guess } = shown;
  const { title, draw } = VIEWS[view()];
  element("strength-field", HTMLLabelElement).hidden = title !== VIEWS.overlay.title;
  paint("photograph", answer.photograph, `The picture as the network sees it: ${guess.name}, ${guess.chance}`);
  for (const variant of about.variants) {
    const xHat = answer.xHats[variant.name];
    const empty = xHat.every((channel) => channel.every((x) => x === 0));
    paint(
      variant.name,
      draw(xHat, answer.photograph),
      `${variant.title}, ${title}, for ${guess.name}${empty ? ": all zero" : ""}`,
    );
    note(variant.name, empty ? "all zero: nothing was left on the way back" : "");
  }
}

function view(): keyof typeof VIEWS {
  const chosen = document.querySelector<HTMLInputElement>("input[name=view]:checked")!;
  return chosen.value as keyof typeof VIEWS;
}

/** A figure for the photograph and for each variant. */
function layOut(): void {
  const [height, width] = about.recipe.size;
  const figures = [{ name: "photograph", title: "The picture, as the network sees it" }, ...about.variants];
  const made = figures.map(({ name, title }) => {
    const figure = document.createElement("figure");
    const canvas = Object.assign(document.createElement("canvas"), { id: name, width, height });
    canvas.setAttribute("role", "img");
    const caption = document.createElement("figcaption");
    caption.append(title, Object.assign(document.createElement("small"), { id: `${name}-note` }));
    figure.append(canvas, caption);
    return figure;
  });
  element("pictures", HTMLDivElement).replaceChildren(...made);
}

function paint(name: string, rgba: Uint8ClampedArray, text: string): void {
  const canvas = element(name, HTMLCanvasElement);
  const pixels = new Uint8ClampedArray(rgba);
  canvas.getContext("2d")!.putImageData(new ImageData(pixels, canvas.width, canvas.height), 0, 0);
  canvas.setAttribute("aria-label", text);
}

function note(name: string, text: string): void {
  document.getElementById(`${name}-note`)!.textContent = text;
}

// ----- Controls -----

async function toggleCamera(): Promise<void> {
  complain("");
  try {
    if (camera.on) camera.stop();
    else await camera.start();
  } catch (error) {
    const why = (error as Error).name === "NotAllowedError" ? "it was not allowed" : (error as Error).message;
    camera.stop();
    complain(`There is no camera: ${why}. A picture from a file works without.`);
  }
  live.checked = false;
  cameraButton.textContent = camera.on ? "Stop the camera" : "Use the camera";
  cameraButton.setAttribute("aria-expanded", String(camera.on));
  element("viewfinder", HTMLDivElement).hidden = !camera.on;
}

async function capture(): Promise<void> {
  if (capturing) return;
  capturing = true;
  try {
    do await look(await camera.picture());
    while (camera.on && live.checked);
  } catch (error) {
    if (camera.on) complain(`The camera gave no picture: ${(error as Error).message}`);
  } finally {
    capturing = false;
  }
}

async function takeSample(): Promise<void> {
  await decode(await (await fetch(about.sample!.file)).blob());
}

function listen(): void {
  choose.onclick = () => file.click();
  file.onchange = () => {
    if (file.files?.[0]) void decode(file.files[0]);
    file.value = ""; // so that the same file can be chosen again
  };
  cameraButton.onclick = () => void toggleCamera();
  element("capture", HTMLButtonElement).onclick = () => void capture();
  live.onchange = () => live.checked && void capture();
  sample.onclick = () => void takeSample();
  classes.onchange = () => void explain({ channel: Number(classes.value) }, ++asked);
  for (const radio of document.querySelectorAll<HTMLInputElement>("input[name=view]")) radio.onchange = draw;
  strength.oninput = draw;
  document.onpaste = ({ clipboardData }) => {
    if (clipboardData?.files[0]) void decode(clipboardData.files[0]);
  };
  document.ondragover = (event) => {
    event.preventDefault();
    document.body.classList.add("dropping");
  };
  document.ondragleave = () => document.body.classList.remove("dropping");
  document.ondrop = (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    if (event.dataTransfer?.files[0]) void decode(event.dataTransfer.files[0]);
  };
}

async function start(): Promise<void> {
  try {
    about = await site();
    element("title", HTMLSpanElement).textContent = about.title;
    element("licences", HTMLUListElement).replaceChildren(
      ...about.licences.map((line) => Object.assign(document.createElement("li"), { textContent: line })),
    );
    layOut();
    const backend = await network.open(about);
    element("backend", HTMLSpanElement).textContent = `onnxruntime-web (${backend})`;
    listen();
    if (about.sample) sample.textContent = about.sample.text;
    sample.hidden = !about.sample;
    for (const button of [choose, cameraButton, sample]) button.disabled = false;
    say(`Ready: ${backend}.`);
  } catch (error) {
    complain(`The network could not be loaded: ${(error as Error).message}. A reload tries again.`);
  }
}

void start();
