// A picture of the page with its sample: node picture.mjs CHROMIUM URL PICTURE.png
import { chromium } from "playwright-core";

const [executablePath, url, path] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
const page = await browser.newPage({ viewport: { width: 1000, height: 720 } });
await page.goto(url);
await page.click("#sample");
await page.waitForSelector("#result:not([hidden])");
await page.screenshot({ path });
await browser.close();
