// The crop that the network sees, to the last bit as Pillow makes it: aspect kept, cut at the centre, bicubic.

export type Plane = Uint8Array | Uint8ClampedArray;

/** One plane of width x height pixels to another size. */
export function cover(plane: Plane, width: number, height: number, [high, wide]: [number, number]): Plane {
  const ratio = wide / high;
  const tooWide = width / height >= ratio;
  const cutWidth = tooWide && width / height !== ratio ? ratio * height : width;
  const cutHeight = tooWide ? height : width / ratio;
  const left = (width - cutWidth) * 0.5;
  const top = (height - cutHeight) * 0.5;
  const rows = resample(plane, width, height, taps(width, left, left + cutWidth, wide), 1);
  return resample(rows, wide, height, taps(height, top, top + cutHeight, high), wide);
}

interface Tap {
  first: number;
  weights: Int32Array;
}

const BITS = 22; // Pillow's fixed point

/** For each pixel of the result, the first that it is made of and the weight of each. */
function taps(size: number, from: number, to: number, out: number): Tap[] | null {
  if (size === out && from === 0 && to === size) return null;
  const start = Math.fround(from); // Pillow's box is in single precision
  const scale = Math.fround(Math.fround(to) - start) / out;
  const stretch = Math.max(scale, 1);
  return Array.from({ length: out }, (_, i) => {
    const centre = start + (i + 0.5) * scale;
    const first = Math.max(Math.trunc(centre - 2 * stretch + 0.5), 0);
    const last = Math.min(Math.trunc(centre + 2 * stretch + 0.5), size);
    const exact = Array.from({ length: last - first }, (_, k) => bicubic((k + first - centre + 0.5) / stretch));
    const sum = exact.reduce((a, b) => a + b, 0);
    const fixed = exact.map((w) => Math.trunc((w / sum) * 2 ** BITS + (w < 0 ? -0.5 : 0.5)));
    return { first, weights: Int32Array.from(fixed) };
  });
}

function bicubic(offset: number): number {
  const x = Math.abs(offset);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0;
}

/** Along rows where `step` is 1, along columns where it is the width; rounded to whole values, as Pillow does. */
function resample(plane: Plane, width: number, height: number, taps: Tap[] | null, step: number): Plane {
  if (!taps) return plane;
  const along = step === 1;
  const out = new Uint8ClampedArray(along ? taps.length * height : width * taps.length);
  const lines = along ? height : width;
  for (let line = 0; line < lines; line++) {
    const origin = along ? line * width : line;
    taps.forEach(({ first, weights }, i) => {
      let sum = 2 ** (BITS - 1);
      for (let k = 0; k < weights.length; k++) sum += plane[origin + (first + k) * step] * weights[k];
      out[along ? line * taps.length + i : i * width + line] = Math.floor(sum / 2 ** BITS);
    });
  }
  return out;
}
