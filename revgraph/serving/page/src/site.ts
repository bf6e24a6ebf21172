// What revgraph wrote beside this page: site.json.

export interface Recipe {
  size: [height: number, width: number];
  channels: "RGB" | "BGR" | "L";
  scale: number;
  mean: number[];
  std: number[];
}

export interface Variant {
  name: string;
  title: string;
  output: string;
}

export interface Site {
  title: string;
  /** Relative to the page, as a URL. */
  model: string;
  input: string;
  scores: string;
  at: string;
  recipe: Recipe;
  variants: Variant[];
  classes: string[] | null;
  licences: string[];
  sample: { file: string; text: string } | null;
}

export async function site(): Promise<Site> {
  const response = await fetch("site.json");
  if (!response.ok) throw new Error(`site.json: ${response.status} ${response.statusText}`);
  return (await response.json()) as Site;
}
