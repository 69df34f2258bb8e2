/** Plays one video: as an adaptive stream, or as one plain file. */

import type { HlsConfig, default as HlsPlayer } from 'hls.js';

import * as api from './api';
import { posterUrl } from './cover';
import { h, replace } from './dom';

export type Mode = 'adaptive' | 'file';

interface Quality {
  label: string;
  choose: () => void;
}

const SEEK_S = 5;

export class Player {
  readonly element: HTMLElement;
  readonly video: HTMLVideoElement;
  readonly #choices = h('div', { class: 'player-choices' });
  readonly #trouble = h('p', { class: 'player-trouble', role: 'alert', hidden: true });
  #hls: HlsPlayer | null = null;
  /** Counts the loads: what an earlier one still has to say is not listened to. */
  #load = 0;

  constructor(
    private subject: api.Video,
    signal: AbortSignal,
  ) {
    this.video = h('video', {
      class: 'player-video',
      controls: true,
      playsinline: true,
      preload: 'metadata',
      poster: posterUrl(subject),
      'aria-label': subject.title,
    });
    if (subject.width && subject.height) {
      this.video.style.setProperty('--ratio', String(subject.width / subject.height));
    }
    const stage = h('div', { class: 'player-stage' }, this.video);
    this.element = h('div', { class: 'player' }, stage, this.#trouble, this.#choices);
    addEventListener('keydown', (event) => this.#key(event), { signal, capture: true });
    signal.addEventListener('abort', () => this.#unload());
  }

  async play(mode: Mode, from_s = 0): Promise<void> {
    this.#unload();
    this.#trouble.hidden = true;
    this.element.dataset.mode = mode;
    const load = this.#load;
    if (mode === 'adaptive') await this.#playAdaptive(load, from_s);
    else this.#playFile(this.#files()[0] ?? null, from_s);
  }

  /** Goes on where it is, with what has been added to the video since. */
  async renew(subject: api.Video): Promise<void> {
    this.subject = subject;
    await this.play(this.element.dataset.mode === 'file' ? 'file' : 'adaptive', this.video.currentTime);
  }

  async #playAdaptive(load: number, from_s: number): Promise<void> {
    const url = this.subject.hls_url;
    if (!url) return this.play('file', from_s);
    const { default: Hls } = await import('hls.js');
    if (load !== this.#load) return;
    // First hls.js, then the browser's own: some browsers claim to play HLS and then do not.
    if (Hls.isSupported()) this.#playWith(Hls, url, from_s);
    else if (this.video.canPlayType('application/vnd.apple.mpegurl')) this.#playNatively(url, from_s);
    else await this.play('file', from_s);
  }

  #playWith(Hls: typeof HlsPlayer, url: string, from_s: number): void {
    const hls = new Hls(hlsConfig(from_s));
    this.#hls = hls;
    let repairs = 0;
    hls.on(Hls.Events.ERROR, (_name, { fatal, type }) => {
      if (!fatal) return;
      repairs += 1;
      if (repairs > 3) return this.#giveUpAdaptive();
      if (type === Hls.ErrorTypes.MEDIA_ERROR) hls.recoverMediaError();
      else if (type === Hls.ErrorTypes.NETWORK_ERROR && repairs === 1) hls.startLoad();
      else this.#giveUpAdaptive();
    });
    hls.on(Hls.Events.MANIFEST_PARSED, () => {
      this.element.dataset.engine = 'hls.js';
      this.#offer('adaptive', levelsOf(hls));
      this.#start();
    });
    hls.loadSource(url);
    hls.attachMedia(this.video);
  }

  #playNatively(url: string, from_s: number): void {
    this.element.dataset.engine = 'native';
    this.#offer('adaptive', []);
    this.#begin(url, from_s);
  }

  #playFile(file: api.Rendition | null, from_s: number): void {
    const url = file?.url ?? this.subject.play_url;
    this.element.dataset.engine = 'file';
    const choose = (each: api.Rendition): Quality => ({
      label: labelOf(each),
      choose: () => this.#playFile(each, this.video.currentTime),
    });
    this.#offer('file', this.#files().map(choose), Math.max(0, file ? this.#files().indexOf(file) : 0));
    if (url) this.#begin(url, from_s);
  }

  #begin(url: string, from_s: number): void {
    this.video.src = url;
    this.video.onerror = () => this.#complain('This file cannot be played here. Try the adaptive stream.');
    this.video.onloadedmetadata = () => {
      if (from_s > 0) this.video.currentTime = from_s;
    };
    this.#start();
  }

  /** Browsers may want a press first; then the controls are there for it. */
  #start(): void {
    this.video.play().catch(() => undefined);
  }

  #giveUpAdaptive(): void {
    const from_s = this.video.currentTime;
    void this.play('file', from_s).then(() => {
      this.#complain('The adaptive stream broke off, so this is the plain file.');
    });
  }

  #complain(text: string): void {
    this.#trouble.textContent = text;
    this.#trouble.hidden = false;
  }

  #unload(): void {
    this.#load += 1;
    this.#hls?.destroy();
    this.#hls = null;
    this.video.onerror = null;
    this.video.removeAttribute('src');
    this.video.load();
  }

  /** The renditions that are there as whole files, best first. */
  #files(): api.Rendition[] {
    return this.subject.renditions
      .filter((rendition) => rendition.state === 'ready' && rendition.url)
      .sort((one, other) => lines(other) - lines(one));
  }

  #offer(mode: Mode, qualities: Quality[], selected = 0): void {
    const select = h('select', { class: 'select', 'aria-label': 'Quality' });
    select.append(...qualities.map(({ label }, index) => h('option', { value: index }, label)));
    select.selectedIndex = selected;
    select.addEventListener('change', () => qualities[select.selectedIndex]?.choose());
    const keys = h('p', { class: 'player-keys' }, 'Space plays · ← → skip · f fills the screen · m mutes');
    // A plain file is fetched by the browser itself, which cannot show who asks: not for a private video.
    const modes = this.subject.visibility !== 'private' && this.#modes(mode);
    replace(this.#choices, modes, qualities.length > 1 && select, keys);
  }

  #modes(current: Mode): HTMLElement {
    const button = (mode: Mode, label: string, title: string): HTMLElement =>
      h(
        'button',
        {
          class: 'segment',
          type: 'button',
          title,
          'data-choose': mode,
          'aria-pressed': String(mode === current),
          click: () => void this.play(mode, this.video.currentTime),
        },
        label,
      );
    return h(
      'div',
      { class: 'segments', role: 'group', 'aria-label': 'How to play' },
      button('adaptive', 'Adaptive', 'A stream that fits itself to the connection'),
      button('file', 'Single file', 'One plain MP4, as it can be downloaded'),
    );
  }

  #key(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey || belongsElsewhere(event)) return;
    const act = this.#keys()[event.key];
    if (!act) return;
    event.preventDefault();
    // The browser's own controls would answer the same key again.
    event.stopPropagation();
    act();
  }

  #keys(): Record<string, () => void> {
    const video = this.video;
    const seek = (by_s: number) => () => (video.currentTime = Math.max(0, video.currentTime + by_s));
    const louder = (by: number) => () => (video.volume = Math.min(1, Math.max(0, video.volume + by)));
    return {
      ' ': () => (video.paused ? this.#start() : video.pause()),
      ArrowLeft: seek(-SEEK_S),
      ArrowRight: seek(SEEK_S),
      ArrowUp: louder(0.1),
      ArrowDown: louder(-0.1),
      f: () => void (document.fullscreenElement ? document.exitFullscreen() : video.requestFullscreen()),
      m: () => (video.muted = !video.muted),
    };
  }
}

function hlsConfig(from_s: number): Partial<HlsConfig> {
  return {
    startPosition: from_s > 0 ? from_s : -1,
    // Segments are fragmented MP4 already: there is nothing to convert, so no worker is worth its start.
    enableWorker: false,
    capLevelToPlayerSize: true,
    xhrSetup: (request, url) => {
      const authorization = api.bearer(url);
      if (authorization) request.setRequestHeader('Authorization', authorization);
    },
  };
}

/** Nothing where there is nothing to choose between. */
function levelsOf(hls: HlsPlayer): Quality[] {
  if (hls.levels.length < 2) return [];
  const levels = hls.levels
    .map((level, index) => ({ index, lines: Math.min(level.width, level.height), codec: codecOf(level.videoCodec) }))
    .sort((one, other) => other.lines - one.lines);
  return [
    { label: 'Auto', choose: () => (hls.nextLevel = -1) },
    ...levels.map(({ index, lines, codec }) => ({ label: `${lines}p${codec}`, choose: () => (hls.nextLevel = index) })),
  ];
}

function labelOf(rendition: api.Rendition): string {
  const resolution = `${lines(rendition)}p${codecOf(rendition.codecs)}`;
  return rendition.name === 'original' ? `${resolution}, original` : resolution;
}

/** What tells two of one resolution apart; H.264 goes without saying. */
function codecOf(codecs: string | null | undefined): string {
  if (codecs?.startsWith('hvc1')) return ' HEVC';
  if (codecs?.startsWith('av01')) return ' AV1';
  return '';
}

/** What people call the resolution: the shorter side, so that portrait videos are named like others. */
function lines(rendition: api.Rendition): number {
  return Math.min(rendition.width ?? 0, rendition.height ?? 0);
}

/** All keys belong to what is being typed in or chosen from; space also to what it would press. */
function belongsElsewhere({ target, key }: KeyboardEvent): boolean {
  if (!(target instanceof Element)) return false;
  return target.closest(key === ' ' ? 'input, textarea, select, dialog, button, a' : 'input, textarea, select, dialog') !== null;
}
