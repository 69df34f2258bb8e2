/**
 * Builds elements without a template language.
 * Children given as strings become text nodes, so what users wrote can never become markup.
 */
export type Child = Node | string | null | undefined | false;

type Attribute = string | number | boolean | null | undefined;
type Listener = (event: never) => void;
export type Props = Record<string, Attribute | Listener>;

export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  props: Props = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) setProp(element, name, value);
  append(element, children);
  return element;
}

export function replace(parent: Element, ...children: Child[]): void {
  parent.replaceChildren();
  append(parent, children);
}

/** Writes the text only when it differs, so that screen readers are not told the same thing twice. */
export function setText(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

function append(parent: Element, children: Child[]): void {
  for (const child of children) {
    if (child !== null && child !== undefined && child !== false) parent.append(child);
  }
}

function setProp(element: HTMLElement, name: string, value: Attribute | Listener): void {
  if (typeof value === 'function') {
    element.addEventListener(name, value as EventListener);
  } else if (typeof value === 'boolean') {
    element.toggleAttribute(name, value);
  } else if (value !== null && value !== undefined) {
    element.setAttribute(name, String(value));
  }
}
