/** The place where files come in: a box to press, and the whole window to drop on. */

import { h } from './dom';
import { icon } from './icons';

export class DropZone {
  readonly element: HTMLElement;
  readonly #input = h('input', { type: 'file', accept: 'video/*,.mkv,.ts,.mts,.avi,.flv', multiple: true, hidden: true });
  readonly #choose = h('button', { class: 'drop-choose', type: 'button' }, 'choose a file');
  #take: (files: File[]) => void;

  constructor(
    private readonly receive: (files: File[]) => void,
    signal: AbortSignal,
  ) {
    this.#take = receive;
    const words = h(
      'div',
      { class: 'drop-words' },
      h('h1', { class: 'drop-title' }, 'Drop a video here, or ', this.#choose),
      h('p', { class: 'drop-hint' }, 'MP4, MOV, MKV, WebM and most others. It can be watched as soon as it is in.'),
    );
    this.element = h('section', { class: 'drop', 'aria-label': 'Upload' }, icon('upload'), words, this.#input);
    this.#choose.addEventListener('click', (event) => {
      event.stopPropagation();
      this.choose(this.receive);
    });
    this.element.addEventListener('click', () => this.choose(this.receive));
    // Opening the picker is a click too; it must not reach the box, which would take the files for itself.
    this.#input.addEventListener('click', (event) => event.stopPropagation());
    this.#input.addEventListener('change', () => this.#chosen());
    this.#listenToWindow(signal);
  }

  /** Opens the file picker; what is chosen goes to `take`. */
  choose(take: (files: File[]) => void): void {
    this.#take = take;
    this.#input.click();
  }

  #chosen(): void {
    const files = [...(this.#input.files ?? [])];
    // So that the same file can be chosen again.
    this.#input.value = '';
    if (files.length > 0) this.#take(files);
  }

  #listenToWindow(signal: AbortSignal): void {
    let depth = 0;
    const lit = (on: boolean): void => void document.body.classList.toggle('is-dropping', on);
    const on = (name: 'dragenter' | 'dragleave' | 'dragover' | 'drop', act: (event: DragEvent) => void): void =>
      addEventListener(
        name,
        (event) => {
          if (!event.dataTransfer?.types.includes('Files')) return;
          event.preventDefault();
          act(event);
        },
        { signal },
      );
    // Entering a child fires before leaving its parent, so the pair is counted.
    on('dragenter', () => lit((depth += 1) > 0));
    on('dragleave', () => lit((depth -= 1) > 0));
    on('dragover', () => undefined);
    on('drop', (event) => {
      depth = 0;
      lit(false);
      const files = [...(event.dataTransfer?.files ?? [])];
      if (files.length > 0) this.receive(files);
    });
    signal.addEventListener('abort', () => lit(false));
  }
}
