// How pictures become a network's input, and x_hat comes back: recipe.py in the browser.
import { cover, type Plane } from "./crop.js";
import type { Recipe } from "./site.js";

/** A picture's planes, R, G and B or grey, at the network's size. */
export function planes(rgba: ImageData, { channels, size }: Recipe): Plane[] {
  const { data, width, height } = rgba;
  const count = width * height;
  const full = [0, 1, 2].map((c) => Uint8Array.from({ length: count }, (_, i) => data[4 * i + c]));
  return (channels === "L" ? [grey(full)] : full).map((plane) => cover(plane, width, height, size));
}

/** ITU-R 601's luma, in Pillow's fixed point. */
function grey([red, green, blue]: Plane[]): Plane {
  return Uint8Array.from(red, (r, i) => (r * 19595 + green[i] * 38470 + blue[i] * 7471 + 0x8000) >> 16);
}

/** x = (pixel - mean) / std, in the recipe's order of channels: (C, H, W). */
export function feed(pixels: Plane[], { channels, scale, mean, std }: Recipe): Float32Array {
  const count = pixels[0].length;
  const x = new Float32Array(count * pixels.length);
  order(pixels, channels).forEach((plane, c) => {
    for (let i = 0; i < count; i++) x[c * count + i] = (plane[i] * (scale / 255) - mean[c]) / std[c];
  });
  return x;
}

/** The channels of x_hat (C, H, W), in the order R, G, B; a single one three times. */
export function rgb(x: Float32Array, { channels }: Recipe): Float32Array[] {
  const count = x.length / channels.length;
  const each = [...channels].map((_, c) => x.subarray(c * count, (c + 1) * count));
  return channels === "L" ? [each[0], each[0], each[0]] : order(each, channels);
}

/** R, G, B to the recipe's order, or back. */
function order<T>(each: T[], channels: Recipe["channels"]): T[] {
  return channels === "BGR" ? [...each].reverse() : each;
}
