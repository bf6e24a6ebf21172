// The network as the page sees it: a question, a promised answer.
import type { Site } from "./site.js";
import type { Answer, Question, Reply } from "./worker.js";

export class Network {
  private worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
  private waiting: { resolve: (reply: Reply) => void; reject: (error: Error) => void }[] = [];

  constructor() {
    this.worker.onmessage = ({ data }: MessageEvent<Reply>) => this.waiting.shift()?.resolve(data);
    this.worker.onerror = ({ message }) => this.waiting.shift()?.reject(new Error(message));
  }

  /** What it runs on. */
  async open(site: Site): Promise<string> {
    const reply = await this.ask({ site });
    return "opened" in reply ? reply.opened : "";
  }

  /** A new picture, or the last one again; a channel of y, or the strongest neuron. */
  async explain(question: { picture?: ImageBitmap; channel?: number }): Promise<Answer> {
    const reply = await this.ask(question, question.picture ? [question.picture] : []);
    if (!("answer" in reply)) throw new Error("no answer");
    return reply.answer;
  }

  private async ask(question: Question, transfer: Transferable[] = []): Promise<Reply> {
    const reply = await new Promise<Reply>((resolve, reject) => {
      this.waiting.push({ resolve, reject });
      this.worker.postMessage(question, transfer);
    });
    if ("error" in reply) throw new Error(reply.error);
    return reply;
  }
}
