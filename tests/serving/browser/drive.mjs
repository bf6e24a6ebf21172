// Drives the page in Chromium and prints what came of it, as JSON; tests/serving/test_web.py judges.
// node drive.mjs CHROMIUM URL PLAIN_URL FOLDER: FOLDER holds exact.png, large.png and broken.png.
import { readFileSync } from "node:fs";
import axe from "axe-core";
import { chromium } from "playwright-core";

const [executablePath, url, plain, folder] = process.argv.slice(2);
const found = { requests: [], errors: [] };
const fake = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"];

async function launch(...args) {
  return chromium.launch({ executablePath, args: ["--no-sandbox", ...args] });
}

async function open(browser, address = url, options = {}) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  context.on("request", (request) => found.requests.push(request.url()));
  page.on("pageerror", (error) => found.errors.push(String(error)));
  page.on("console", (message) => message.type() === "error" && found.errors.push(message.text()));
  await page.addInitScript(() => document.addEventListener("explained", (event) => (window.answer = event.detail)));
  await page.goto(address);
  return page;
}

const ready = (page) => page.waitForSelector("#choose:enabled");
const status = (page) => page.textContent("#status");
const error = (page) => page.textContent("#error:not([hidden])");

/** What the page answers to something done on it. */
async function answered(page, act) {
  await page.evaluate(() => (window.answer = null));
  await act();
  await page.waitForFunction(() => window.answer);
  return page.evaluate(() => {
    const base64 = (array) => {
      const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
      let text = "";
      for (let i = 0; i < bytes.length; i += 4096) text += String.fromCharCode(...bytes.subarray(i, i + 4096));
      return btoa(text);
    };
    const { x, y, scores, photograph, xHats, milliseconds } = window.answer;
    const maps = Object.entries(xHats).map(([name, planes]) => [name, planes.map(base64)]);
    return { x: base64(x), y: base64(y), scores: base64(scores), photograph: base64(photograph),
      xHats: Object.fromEntries(maps), milliseconds };
  });
}

const canvases = (page) =>
  page.$$eval("canvas", (all) =>
    Object.fromEntries(all.map((canvas) => {
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      let text = "";
      for (let i = 0; i < data.length; i += 4096) text += String.fromCharCode(...data.subarray(i, i + 4096));
      return [canvas.id, { pixels: btoa(text), label: canvas.getAttribute("aria-label") }];
    })));

async function accessibility(page) {
  await page.evaluate(axe.source);
  const { violations } = await page.evaluate(() => window.axe.run());
  return violations.map(({ id, impact, nodes }) => `${impact} ${id}: ${nodes.map((node) => node.html).join(" ")}`);
}

const upload = (page, name) => page.setInputFiles("#file", `${folder}/${name}`);

async function drop(page, name) {
  const bytes = readFileSync(`${folder}/${name}`).toString("base64");
  await page.evaluate((text) => {
    const transfer = new DataTransfer();
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    transfer.items.add(new File([bytes], "dropped.png", { type: "image/png" }));
    document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true }));
  }, bytes);
}

const browser = await launch(...fake);
const wide = { viewport: { width: 1280, height: 900 }, colorScheme: "light" };
const page = await open(browser, url, wide);
const opened = Date.now();
await ready(page);
found.load = Date.now() - opened;
found.ready = await status(page);
found.isolated = await page.evaluate(() => crossOriginIsolated);

found.exact = await answered(page, () => upload(page, "exact.png"));
found.views = {};
for (const view of ["tone", "saliency", "overlay"]) {
  await page.check(`input[value=${view}]`);
  found.views[view] = await canvases(page);
}
await page.check("input[value=tone]");
found.large = await answered(page, () => drop(page, "large.png"));

await upload(page, "broken.png");
found.broken = await error(page);

await page.focus("body");
await page.evaluate(() => document.activeElement.blur());
found.tabs = [];
for (let i = 0; i < 12; i++) {
  await page.keyboard.press("Tab");
  found.tabs.push(await page.evaluate(() => document.activeElement.id || document.activeElement.name));
}
await page.focus("#sample");
found.sample = await answered(page, () => page.keyboard.press("Enter"));
found.said = await status(page);
found.hidden = await page.isHidden("#error");
found.classes = await page.$$eval("#class option", (all) => all.map((each) => [Number(each.value), each.text]));
await page.focus("#class");
found.second = await answered(page, () => page.keyboard.press("ArrowDown"));
found.secondSaid = await status(page);
found.secondLabel = (await canvases(page)).desalinet.label;
found.light = { axe: await accessibility(page), ground: await ground(page) };

const phone = await open(browser, url, { viewport: { width: 320, height: 640 }, colorScheme: "dark" });
await ready(phone);
await answered(phone, () => phone.click("#sample"));
await phone.check("input[value=overlay]");
await phone.click("summary");
found.dark = { axe: await accessibility(phone), ground: await ground(phone) };
found.width = await phone.evaluate(() => document.documentElement.scrollWidth);

await phone.click("#camera");
await phone.waitForSelector("#viewfinder:not([hidden])");
found.camera = (await answered(phone, () => phone.click("#capture"))).xHats.salinet.length;
await answered(phone, () => phone.check("#live"));
await phone.click("#camera");
found.cameraOff = await phone.isHidden("#viewfinder");
await browser.close();

const strict = await launch(fake[0]);
const refused = await open(strict);
await ready(refused);
await refused.click("#camera");
found.refused = await error(refused);

const deep = await open(strict, plain);
await ready(deep);
found.plain = { isolated: await deep.evaluate(() => crossOriginIsolated), ready: await status(deep) };
found.plain.answer = await answered(deep, () => deep.click("#sample"));

const expected = found.errors.length;
const missing = await strict.newContext();
await missing.route("**/*.onnx", (route) => route.fulfill({ status: 404, body: "" }));
const without = await missing.newPage();
await without.goto(url);
found.missing = await error(without);
found.errors.splice(expected);
await strict.close();
console.log(JSON.stringify(found));

async function ground(page) {
  return page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
}
