/** Short messages at the foot of the window, read aloud where a screen reader listens. */

import { h } from './dom';
import { Problem } from './problem';

const SHOWN_MS = 6000;

const region = h('div', { class: 'notices', role: 'status', 'aria-live': 'polite' });

export function mountNotices(): void {
  document.body.append(region);
}

export function notify(text: string): void {
  show(h('p', { class: 'notice' }, text));
}

export function notifyProblem(error: unknown): void {
  const problem = Problem.from(error);
  show(h('p', { class: 'notice notice-bad' }, h('strong', {}, problem.title), problem.detail));
}

function show(notice: HTMLElement): void {
  region.append(notice);
  setTimeout(() => notice.remove(), SHOWN_MS);
}
