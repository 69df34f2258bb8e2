/** One video in a list, from the moment its file is dropped to the day it is deleted. */

import * as api from './api';
import { cover, tint } from './cover';
import { confirmed } from './dialog';
import { h, replace, setText } from './dom';
import * as format from './format';
import { drawFrame } from './frame';
import { icon } from './icons';
import { notifyProblem } from './notice';
import { follow } from './progress';
import { session } from './session';
import { stageOf, stageOfUpload, type Stage } from './stage';
import type { Upload, UploadQueue } from './upload';

export interface CardContext {
  uploads: UploadQueue;
  signal: AbortSignal;
  /** Opens the file picker for a video that waits for its file. */
  chooseFile: (video: api.Video) => void;
}

export class VideoCard {
  readonly element: HTMLElement;
  #video: api.Video | null;
  #following = false;
  #drawnCover: string | null = null;

  readonly #picture = h('a', { class: 'cover', tabindex: '-1', 'aria-hidden': 'true' });
  readonly #image = h('span', { class: 'cover-frame' });
  readonly #veil = h('span', { class: 'cover-veil' });
  readonly #length = h('span', { class: 'cover-length' });
  readonly #title = h('a', { class: 'card-title' });
  readonly #byline = h('p', { class: 'card-byline' });
  readonly #label = h('p', { class: 'stage-label' });
  readonly #detail = h('p', { class: 'stage-detail' });
  readonly #bar = h('div', { class: 'bar', role: 'progressbar', 'aria-valuemin': 0, 'aria-valuemax': 100 });
  readonly #stage = h('div', { class: 'stage' });
  readonly #actions = h('div', { class: 'card-actions' });

  constructor(
    private readonly context: CardContext,
    video: api.Video | null,
    private upload: Upload | null = null,
  ) {
    this.#video = video;
    this.#bar.append(h('span', { class: 'bar-level' }));
    this.#picture.append(this.#image, this.#veil, this.#length);
    this.#stage.append(this.#bar, this.#label, this.#detail);
    const words = h('div', { class: 'card-words' }, this.#title, this.#byline);
    const body = h('div', { class: 'card-body' }, h('div', { class: 'card-head' }, words, this.#actions), this.#stage);
    this.element = h('li', { class: 'card' }, this.#picture, body);
    if (upload) this.#attach(upload);
    this.#render();
    this.#followIfMoving();
  }

  get videoId(): string | null {
    return this.#video?.id ?? this.upload?.video?.id ?? null;
  }

  #attach(upload: Upload): void {
    this.upload = upload;
    upload.addEventListener('change', () => this.#uploadChanged(upload), { signal: this.context.signal });
    void drawFrame(upload.file).then((frame) => {
      if (!frame || this.#drawnCover !== null) return;
      replace(this.#image, frame);
      this.#render();
    });
  }

  #uploadChanged(upload: Upload): void {
    if (upload.state === 'cancelled') return this.element.remove();
    if (upload.state === 'sent' && upload.video) {
      // The answer says that every byte is kept; the rest is the server's to tell.
      this.#video = { ...upload.video, state: 'uploaded', upload: null };
      this.upload = null;
      this.context.uploads.remove(upload);
      this.#followIfMoving();
    }
    this.#render();
  }

  #followIfMoving(): void {
    if (!this.#video || this.upload || this.#following || !this.#isMine() || !api.isMoving(this.#video.state)) return;
    this.#following = true;
    const tell = (video: api.Video | null): void => {
      this.#video = video;
      if (video) this.#render();
      else this.element.remove();
    };
    void follow(this.#video.id, this.context.signal, tell).finally(() => (this.#following = false));
  }

  #render(): void {
    const watchable = this.#video !== null && api.isWatchable(this.#video.state);
    const stage = this.upload ? stageOfUpload(this.upload) : this.#ownStage();
    this.element.dataset.state = this.#video?.state ?? this.upload?.state ?? '';
    this.element.dataset.video = this.videoId ?? '';
    setText(this.#title, this.#video?.title ?? this.upload?.title ?? '');
    setText(this.#byline, this.#bylineText());
    for (const link of [this.#picture, this.#title]) {
      if (watchable && this.#video) link.href = `#/v/${this.#video.id}`;
      else link.removeAttribute('href');
    }
    this.#renderCover(watchable);
    this.#renderStage(stage, watchable);
    this.#renderActions();
  }

  /** What is still being made of a video concerns its owner; everyone else can watch it. */
  #ownStage(): Stage | null {
    return this.#video && this.#isMine() ? stageOf(this.#video) : null;
  }

  #bylineText(): string {
    if (!this.#video) return this.upload?.file.name ?? '';
    const parts = [format.ago(this.#video.published_at ?? this.#video.created_at)];
    if (!this.#isMine()) parts.unshift(this.#video.author.display_name ?? this.#video.author.username);
    if (this.#video.visibility !== 'public') parts.push(this.#video.visibility);
    return parts.join(' · ');
  }

  #renderCover(watchable: boolean): void {
    const video = this.#video;
    const duration_s = video?.duration_s ?? null;
    setText(this.#length, duration_s === null ? '' : format.clock(duration_s));
    if (!video || !watchable || this.#drawnCover === video.cover_url) {
      if (this.#image.childElementCount === 0) replace(this.#image, icon('film'));
      return;
    }
    this.#drawnCover = video.cover_url;
    replace(this.#image, tint(video), cover(video, this.context.signal));
  }

  #renderStage(stage: Stage | null, watchable: boolean): void {
    this.#stage.hidden = stage === null;
    // The picture stands under water up to the level reached; a video that can be watched is clear.
    this.#veil.hidden = watchable || stage === null || this.#image.querySelector('.icon') !== null;
    if (!stage) return;
    this.#stage.dataset.tone = stage.tone;
    setText(this.#label, stage.label);
    setText(this.#detail, stage.detail);
    const level = stage.level ?? 0;
    this.#veil.style.setProperty('--level', `${level * 100}%`);
    this.#bar.style.setProperty('--level', `${level * 100}%`);
    this.#bar.hidden = stage.tone === 'bad' || (stage.tone === 'waiting' && stage.level === null);
    this.#bar.classList.toggle('bar-unknown', stage.level === null);
    this.#bar.setAttribute('aria-label', stage.label);
    if (stage.level === null) this.#bar.removeAttribute('aria-valuenow');
    else this.#bar.setAttribute('aria-valuenow', String(Math.round(level * 100)));
  }

  /** The buttons change with the kind of card only, so that a press never lands on one being replaced. */
  #renderActions(): void {
    const kind = this.#actionKind();
    if (this.#actions.dataset.kind === kind) return;
    this.#actions.dataset.kind = kind;
    const upload = this.upload;
    const video = this.#video;
    const buttons: HTMLElement[] = [];
    if (upload && kind === 'failed' && upload.problem?.status !== 413) {
      buttons.push(textButton('Try again', () => this.context.uploads.retry(upload)));
    }
    if (upload) buttons.push(iconButton('close', `Cancel the upload of ${upload.title}`, () => upload.cancel()));
    if (!upload && video && kind === 'waiting') {
      buttons.push(textButton('Choose file', () => this.context.chooseFile(video)));
    }
    if (!upload && video && this.#isMine()) {
      buttons.push(iconButton('trash', `Delete ${video.title}`, () => void this.#delete(video)));
    }
    replace(this.#actions, ...buttons);
  }

  #actionKind(): string {
    if (this.upload) return this.upload.state === 'failed' ? 'failed' : 'upload';
    if (!this.#isMine()) return 'foreign';
    const state = this.#video?.state ?? 'deleted';
    if (state === 'awaiting_upload' || state === 'uploading') return 'waiting';
    return api.isWatchable(state) ? 'mine' : 'unwatchable';
  }

  async #delete(video: api.Video): Promise<void> {
    if (await deleteVideo(video)) this.element.remove();
  }

  #isMine(): boolean {
    return this.#video !== null && this.#video.author.id === session.user?.id;
  }
}

/** Asks, deletes, and says whether the video is gone. */
export async function deleteVideo(video: api.Video): Promise<boolean> {
  const text = `“${video.title}” disappears for everyone at once. This cannot be undone.`;
  if (!(await confirmed('Delete this video?', text, 'Delete'))) return false;
  try {
    await api.deleteVideo(video.id);
    return true;
  } catch (error) {
    notifyProblem(error);
    return false;
  }
}

function textButton(label: string, click: () => void): HTMLElement {
  return h('button', { class: 'button button-small', type: 'button', click }, label);
}

function iconButton(name: 'close' | 'trash', label: string, click: () => void): HTMLElement {
  return h('button', { class: 'button-icon', type: 'button', 'aria-label': label, title: label, click }, icon(name));
}
