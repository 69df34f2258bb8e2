/** What people say about a video. */

import { signIn } from './account';
import * as api from './api';
import { h } from './dom';
import { field, form } from './form';
import * as format from './format';
import { icon } from './icons';
import { notifyProblem } from './notice';
import { session } from './session';

export class Comments {
  readonly element: HTMLElement;
  readonly #list = h('ul', { class: 'comments' });
  readonly #more = h('button', { class: 'button', type: 'button', hidden: true }, 'Show more');
  #cursor: string | null = null;

  constructor(
    private readonly video: api.Video,
    private readonly signal: AbortSignal,
  ) {
    const heading = h('h2', { class: 'feed-heading' }, 'Comments');
    this.element = h('section', { class: 'comments-section' }, heading, this.#writing(), this.#list, this.#more);
    this.#more.addEventListener('click', () => void this.read());
  }

  async read(): Promise<void> {
    try {
      const page = await api.comments(this.video.id, this.#cursor, this.signal);
      this.#list.append(...page.items.map((comment) => this.#item(comment)));
      this.#cursor = page.next_cursor;
      this.#more.hidden = this.#cursor === null;
    } catch (error) {
      if (!this.signal.aborted) notifyProblem(error);
    }
  }

  #writing(): HTMLElement {
    if (!session.user) {
      const enter = h('button', { class: 'button', type: 'button', click: () => void signIn() }, 'Log in to comment');
      return h('div', {}, enter);
    }
    const text = h('textarea', { class: 'input', rows: 2, required: true, maxlength: 2000, placeholder: 'Say something about it' });
    const element = form('Comment', [field('Your comment', 'content', text)], async ({ content }) => {
      this.#list.prepend(this.#item(await api.addComment(this.video.id, content ?? '')));
      element.reset();
    });
    return element;
  }

  #item(comment: api.Comment): HTMLElement {
    const name = comment.author.display_name ?? comment.author.username;
    const item = h(
      'li',
      { class: 'comment' },
      h('p', { class: 'comment-head' }, h('strong', {}, name), format.ago(comment.created_at)),
      h('p', { class: 'comment-text' }, comment.content),
    );
    const me = session.user?.id;
    if (me === comment.author.id || me === this.video.author.id) item.append(this.#deleteButton(comment, item));
    return item;
  }

  #deleteButton(comment: api.Comment, item: HTMLElement): HTMLElement {
    const click = (): void => {
      api
        .deleteComment(this.video.id, comment.id)
        .then(() => item.remove())
        .catch(notifyProblem);
    };
    const label = 'Delete this comment';
    return h('button', { class: 'button-icon', type: 'button', 'aria-label': label, title: label, click }, icon('trash'));
  }
}
