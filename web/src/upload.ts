/** Sends files to the server, a few at a time, and says how far each one is. */

import * as api from './api';
import * as format from './format';
import { Problem } from './problem';
import { session } from './session';

/** More at once would only share the same line, and take connections away from the rest of the page. */
const AT_ONCE_MAX = 2;

/** The speed shown is the mean over this long: steady enough to read, quick enough to follow a change. */
const SPEED_WINDOW_MS = 4000;

export type UploadState = 'waiting' | 'sending' | 'storing' | 'sent' | 'failed' | 'cancelled';

/** One file on its way. Fires `change` whenever one of its fields did. */
export class Upload extends EventTarget {
  readonly title: string;
  /** Whose list it belongs in, should someone else sign in meanwhile. */
  readonly owner = session.user?.id ?? null;
  state: UploadState = 'waiting';
  sent_bytes = 0;
  bytes_per_s = 0;
  problem: Problem | null = null;

  #request: XMLHttpRequest | null = null;
  #samples: { at_ms: number; sent_bytes: number }[] = [];

  /** `video` is given where one already waits for its file; otherwise it is created. */
  constructor(
    readonly file: File,
    public video: api.Video | null = null,
  ) {
    super();
    this.title = video?.title ?? format.titleOf(file.name);
  }

  get left_s(): number | null {
    return this.bytes_per_s > 0 ? (this.file.size - this.sent_bytes) / this.bytes_per_s : null;
  }

  get isActive(): boolean {
    return this.state === 'waiting' || this.state === 'sending' || this.state === 'storing';
  }

  /** Stands in line again, after a failure. */
  wait(): void {
    this.problem = null;
    this.#become('waiting');
  }

  async run(): Promise<void> {
    this.sent_bytes = 0;
    this.#samples = [];
    this.#become('sending');
    try {
      const target = await this.#target();
      if (target && this.isActive) await this.#send(target);
      if (this.isActive) this.#become('sent');
    } catch (error) {
      this.problem = Problem.from(error);
      if (this.isActive) this.#become('failed');
    }
    if (this.state === 'cancelled') await this.#forget();
  }

  /** Stops, and takes the video off the server again. */
  cancel(): void {
    if (this.state === 'sent' || this.state === 'cancelled') return;
    const wasRunning = this.state === 'sending' || this.state === 'storing';
    this.#become('cancelled');
    this.#request?.abort();
    if (!wasRunning) void this.#forget();
  }

  /** Where the bytes go; null when an earlier try turns out to have arrived and only its answer was lost. */
  async #target(): Promise<api.UploadTarget | null> {
    this.video = this.video ? await api.video(this.video.id) : await api.createVideo(this.title);
    const target = this.video.upload ?? null;
    if (target && this.file.size > target.max_bytes) {
      await this.#forget();
      throw new Problem(
        413,
        'The file is too large',
        `It has ${format.bytes(this.file.size)}; this server takes up to ${format.bytes(target.max_bytes)}.`,
      );
    }
    return target;
  }

  #send(target: api.UploadTarget): Promise<void> {
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      this.#request = request;
      request.open('POST', target.url);
      request.setRequestHeader('Authorization', `Bearer ${target.token}`);
      request.setRequestHeader('Content-Type', contentType(this.file));
      request.upload.onprogress = (event) => this.#progress(event.loaded);
      request.upload.onload = () => {
        if (this.isActive) this.#become('storing');
      };
      request.onload = () => {
        if (request.status < 300) resolve();
        else reject(Problem.of(request.status, request.responseText, request.getResponseHeader('Retry-After')));
      };
      request.onerror = () => reject(Problem.offline());
      request.onabort = () => resolve();
      request.send(this.file);
    });
  }

  #progress(sent_bytes: number): void {
    const now_ms = performance.now();
    this.sent_bytes = sent_bytes;
    this.#samples.push({ at_ms: now_ms, sent_bytes });
    this.#samples = this.#samples.filter((sample) => now_ms - sample.at_ms <= SPEED_WINDOW_MS);
    const first = this.#samples[0];
    const window_ms = first ? now_ms - first.at_ms : 0;
    // A speed from a few milliseconds would be noise.
    if (first && window_ms > 300) this.bytes_per_s = ((sent_bytes - first.sent_bytes) / window_ms) * 1000;
    this.dispatchEvent(new Event('change'));
  }

  async #forget(): Promise<void> {
    const id = this.video?.id;
    this.video = null;
    // Where this fails the video waits in the list, from which it can be deleted.
    if (id) await api.deleteVideo(id).catch(() => undefined);
  }

  #become(state: UploadState): void {
    this.state = state;
    this.dispatchEvent(new Event('change'));
  }
}

/** All uploads of this page, newest first. Fires `change` when one is added or leaves. */
export class UploadQueue extends EventTarget {
  readonly all: Upload[] = [];

  constructor() {
    super();
    addEventListener('beforeunload', (event) => {
      if (this.all.some((upload) => upload.isActive)) event.preventDefault();
    });
  }

  add(file: File, video: api.Video | null = null): Upload {
    const upload = new Upload(file, video);
    this.all.unshift(upload);
    upload.addEventListener('change', () => this.#advance(upload));
    this.dispatchEvent(new Event('change'));
    this.#startNext();
    return upload;
  }

  retry(upload: Upload): void {
    upload.wait();
    this.#startNext();
  }

  of(video: string): Upload | undefined {
    return this.all.find((upload) => upload.video?.id === video);
  }

  remove(upload: Upload): void {
    const index = this.all.indexOf(upload);
    if (index < 0) return;
    this.all.splice(index, 1);
    this.dispatchEvent(new Event('change'));
  }

  #advance(upload: Upload): void {
    if (upload.state === 'cancelled') this.remove(upload);
    if (!upload.isActive) this.#startNext();
  }

  #startNext(): void {
    const running = this.all.filter((upload) => upload.state === 'sending' || upload.state === 'storing').length;
    if (running >= AT_ONCE_MAX) return;
    const next = this.all.findLast((upload) => upload.state === 'waiting');
    if (!next) return;
    void next.run();
    this.#startNext();
  }
}

/** The server looks at the bytes anyway; it only wants to hear that this is meant as a video. */
function contentType(file: File): string {
  return file.type.startsWith('video/') ? file.type : 'application/octet-stream';
}
