// x_hat made visible: picture.py in the browser. Channels are R, G, B; pictures are RGBA.

/** The q-quantile, linear between neighbours. */
export function quantile(values: Float32Array, q: number): number {
  const sorted = Float32Array.from(values).sort();
  const place = q * (sorted.length - 1);
  const below = Math.floor(place);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (sorted[above] - sorted[below]) * (place - below);
}

/** sigma(-log(99) x / a), a the 0.5 % quantile of all of x_hat: footnote 4 of the paper. */
export function toneMap(xHat: Float32Array[]): Uint8ClampedArray {
  const all = join(xHat);
  let a = quantile(all, 0.005);
  if (Math.abs(a) < 1e-5) a = all.reduce((least, x) => Math.min(least, x), Infinity);
  const tone = (x: number) => (a === 0 ? 0.5 : 0.5 + 0.5 * Math.tanh((-Math.log(99) / 2) * (x / a)));
  return picture(xHat[0].length, (i, c) => tone(xHat[c][i]));
}

/** The largest |x_hat| of each pixel's channels, from 0 to its 99.5 % quantile, as 0 to 1. */
export function saliency(xHat: Float32Array[]): Float32Array {
  const [red, green, blue] = xHat;
  const map = red.map((r, i) => Math.max(Math.abs(r), Math.abs(green[i]), Math.abs(blue[i])));
  const top = quantile(map, 0.995) || map.reduce((most, x) => Math.max(most, x), 0) || 1;
  return map.map((x) => Math.min(x, top) / top);
}

export function greyMap(xHat: Float32Array[]): Uint8ClampedArray {
  const map = saliency(xHat);
  return picture(map.length, (i) => map[i]);
}

const LIT = [1, 0.8, 0]; // amber, which few photographs hold much of

/** The saliency map as light on the darkened photograph, all of it at strength 1. */
export function overlay(xHat: Float32Array[], photograph: Uint8ClampedArray, strength: number): Uint8ClampedArray {
  const map = saliency(xHat);
  return picture(map.length, (i, c) => {
    const dimmed = (photograph[4 * i + c] / 255) * (1 - 0.6 * strength);
    return dimmed + (LIT[c] - dimmed) * strength * map[i];
  });
}

function join(xHat: Float32Array[]): Float32Array {
  const all = new Float32Array(xHat.length * xHat[0].length);
  xHat.forEach((channel, c) => all.set(channel, c * channel.length));
  return all;
}

/** Values in [0, 1] by pixel and channel, as opaque 8-bit pixels. */
function picture(count: number, value: (pixel: number, channel: number) => number): Uint8ClampedArray {
  const rgba = new Uint8ClampedArray(4 * count);
  for (let i = 0; i < count; i++) {
    for (let c = 0; c < 3; c++) rgba[4 * i + c] = value(i, c) * 255;
    rgba[4 * i + 3] = 255;
  }
  return rgba;
}
