// What the network says: its strongest channels, by name.
import type { Site } from "./site.js";
import type { Answer } from "./worker.js";

export interface Guess {
  channel: number;
  name: string;
  /** A probability where the network gives one, else a score. */
  chance: string;
}

export function strongest({ y, channels, scores }: Answer, { classes }: Site, count = 5): Guess[] {
  const positions = y.length / channels;
  const peaks = Array.from({ length: channels }, (_, c) =>
    y.subarray(c * positions, (c + 1) * positions).reduce((most, value) => Math.max(most, value), -Infinity),
  );
  const isChance = scores.length === channels && scores.every((p) => p >= 0) && Math.abs(sum(scores) - 1) < 1e-3;
  const ranked = peaks.map((_, c) => c).sort((a, b) => peaks[b] - peaks[a]);
  return ranked.slice(0, count).map((channel) => ({
    channel,
    name: classes?.length === channels ? classes[channel] : `channel ${channel}`,
    chance: isChance ? percent(scores[channel]) : `score ${peaks[channel].toPrecision(4)}`,
  }));
}

function percent(chance: number): string {
  return chance < 0.01 ? "under 1 %" : `${Math.round(100 * chance)} %`;
}

function sum(values: Float32Array): number {
  return values.reduce((a, b) => a + b, 0);
}
