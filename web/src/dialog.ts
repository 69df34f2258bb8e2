/** Modal windows on the browser's own `<dialog>`, which keeps the focus inside and closes on Escape. */

import { h } from './dom';
import { icon } from './icons';

export interface Opened {
  element: HTMLDialogElement;
  closed: Promise<void>;
}

export function openDialog(title: string, ...children: HTMLElement[]): Opened {
  const close = h('button', { class: 'button-icon', type: 'button', 'aria-label': 'Close' }, icon('close'));
  const element = h(
    'dialog',
    { class: 'dialog', 'aria-label': title },
    h('header', { class: 'dialog-head' }, h('h2', {}, title), close),
    ...children,
  );
  close.addEventListener('click', () => element.close());
  // A press on the dimmed page around it.
  element.addEventListener('pointerdown', (event) => {
    if (event.target === element) element.close();
  });
  document.body.append(element);
  element.showModal();
  const closed = new Promise<void>((resolve) => {
    element.addEventListener('close', () => {
      element.remove();
      resolve();
    });
  });
  return { element, closed };
}

/** Asks before something that cannot be undone. */
export async function confirmed(title: string, text: string, action: string): Promise<boolean> {
  let agreed = false;
  const no = h('button', { class: 'button', type: 'button' }, 'Keep it');
  const yes = h('button', { class: 'button button-danger', type: 'button' }, action);
  const { element, closed } = openDialog(
    title,
    h('p', { class: 'dialog-text' }, text),
    h('div', { class: 'form-end' }, no, yes),
  );
  no.addEventListener('click', () => element.close());
  yes.addEventListener('click', () => {
    agreed = true;
    element.close();
  });
  no.focus();
  await closed;
  return agreed;
}
