/** A list of cards that reads its pages from the server as they are asked for. */

import type { Page, Video } from './api';
import { h } from './dom';
import { notifyProblem } from './notice';

/** A page may hold nothing that is kept; so many are read on before waiting for a press. */
const EMPTY_PAGES_MAX = 5;

export interface FeedSource {
  heading: string;
  page: (cursor: string | null) => Promise<Page<Video>>;
  card: (video: Video) => HTMLElement;
  /** Leaves out what another list of the page shows already. */
  keep: (video: Video) => boolean;
}

export class Feed {
  readonly element: HTMLElement;
  readonly #cards = h('ul', { class: 'cards' });
  readonly #more = h('button', { class: 'button', type: 'button', hidden: true }, 'Show more');
  #cursor: string | null = null;

  constructor(
    private readonly source: FeedSource,
    private readonly changed: () => void,
  ) {
    const heading = h('h2', { class: 'feed-heading' }, source.heading);
    this.element = h('section', { class: 'feed', hidden: true }, heading, this.#cards, this.#more);
    this.#more.addEventListener('click', () => void this.read());
    // Cards leave by themselves when their video is deleted.
    new MutationObserver(() => this.#settle()).observe(this.#cards, { childList: true });
  }

  get isEmpty(): boolean {
    return this.#cards.childElementCount === 0;
  }

  prepend(card: HTMLElement): void {
    this.#cards.prepend(card);
    this.#settle();
  }

  async read(): Promise<void> {
    this.#more.disabled = true;
    try {
      await this.#readOn();
    } catch (error) {
      if (!(error instanceof DOMException)) notifyProblem(error);
    }
    this.#more.disabled = false;
    this.#more.hidden = this.#cursor === null;
    this.#settle();
  }

  async #readOn(): Promise<void> {
    for (let page = 0; page < EMPTY_PAGES_MAX; page += 1) {
      const { items, next_cursor } = await this.source.page(this.#cursor);
      const kept = items.filter(this.source.keep);
      this.#cards.append(...kept.map(this.source.card));
      this.#cursor = next_cursor;
      if (kept.length > 0 || next_cursor === null) return;
    }
  }

  #settle(): void {
    this.element.hidden = this.isEmpty && this.#cursor === null;
    this.changed();
  }
}
