/** Forms that send themselves, wait visibly, and show the server's complaints beside the fields they are about. */

import { h, replace, type Props } from './dom';
import { Problem } from './problem';

let fields = 0;

/** A labelled control; `hint` stands below it until there is a complaint to show instead. */
export function field(label: string, name: string, control: HTMLElement, hint = ''): HTMLElement {
  fields += 1;
  const id = `field-${fields}`;
  control.id = id;
  control.setAttribute('name', name);
  control.setAttribute('aria-describedby', `${id}-hint`);
  const note = h('p', { class: 'field-hint', id: `${id}-hint`, 'data-field': name, 'data-hint': hint }, hint);
  return h('div', { class: 'field' }, h('label', { for: id }, label), control, note);
}

export function input(props: Props): HTMLInputElement {
  return h('input', { class: 'input', ...props });
}

/** `submit` gets the values; what it throws is shown, and the form can be sent again. */
export function form(
  button: string,
  children: HTMLElement[],
  submit: (values: Record<string, string>) => Promise<void>,
): HTMLFormElement {
  const send = h('button', { class: 'button button-main', type: 'submit' }, button);
  const complaint = h('div', { class: 'complaint', role: 'alert' });
  const element = h('form', { class: 'form' }, ...children, complaint, h('div', { class: 'form-end' }, send));
  element.addEventListener('submit', (event) => {
    event.preventDefault();
    const values = Object.fromEntries([...new FormData(element)].map(([name, value]) => [name, String(value)]));
    send.disabled = true;
    complain(element, complaint, null);
    submit(values)
      .catch((error: unknown) => complain(element, complaint, Problem.from(error)))
      .finally(() => (send.disabled = false));
  });
  return element;
}

function complain(element: HTMLFormElement, complaint: HTMLElement, problem: Problem | null): void {
  const elsewhere = new Map((problem?.fields ?? []).map(({ field, message }) => [field, message]));
  for (const note of element.querySelectorAll<HTMLElement>('[data-field]')) {
    const name = note.dataset.field ?? '';
    const message = elsewhere.get(name);
    elsewhere.delete(name);
    note.textContent = message ?? note.dataset.hint ?? '';
    note.classList.toggle('field-bad', message !== undefined);
    const control = element.elements.namedItem(name);
    if (control instanceof HTMLElement) control.setAttribute('aria-invalid', String(message !== undefined));
  }
  // A problem wholly told beside the fields need not be told twice.
  const told = problem !== null && problem.fields.length > 0 && elsewhere.size === 0;
  if (problem === null || told) return complaint.replaceChildren();
  replace(
    complaint,
    h('strong', {}, problem.title),
    problem.detail && h('span', {}, problem.detail),
    ...[...elsewhere].map(([name, message]) => h('span', {}, `${name}: ${message}`)),
  );
}
