// The camera: pictures of its video.

export class Camera {
  private stream: MediaStream | null = null;

  constructor(private video: HTMLVideoElement) {}

  get on(): boolean {
    return this.stream !== null;
  }

  async start(): Promise<void> {
    // Browsers give no camera to pages that came over plain http.
    if (!navigator.mediaDevices) throw new Error("this page must come from https or localhost");
    const size = { width: { ideal: 640 }, height: { ideal: 480 } };
    this.stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", ...size } });
    this.video.srcObject = this.stream;
    await this.video.play();
  }

  picture(): Promise<ImageBitmap> {
    return createImageBitmap(this.video);
  }

  stop(): void {
    this.stream?.getTracks().forEach((track) => track.stop());
    this.stream = null;
    this.video.srcObject = null;
  }
}
