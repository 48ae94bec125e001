// Updates nodes in place with minimal changes, so that selection and scroll positions are kept.

/** Makes the children of `here` equal to those of `there`, whose nodes may be moved. */
export function morph(here: Node, there: Node): void {
  let old = here.firstChild;
  for (let next = there.firstChild; next;) {
    const following = next.nextSibling;
    if (!old) here.appendChild(next);
    else {
      const after: ChildNode | null = old.nextSibling;
      become(old, next);
      old = after;
    }
    next = following;
  }
  while (old) {
    const after: ChildNode | null = old.nextSibling;
    old.remove();
    old = after;
  }
}

function become(old: ChildNode, next: ChildNode): void {
  if (old instanceof Text && next instanceof Text) {
    if (old.data === next.data) return;
    if (next.data.startsWith(old.data)) old.appendData(next.data.slice(old.length));
    else old.data = next.data;
  } else if (
    old instanceof HTMLElement &&
    next instanceof HTMLElement &&
    old.tagName === next.tagName
  ) {
    for (const { name } of [...old.attributes])
      if (!next.hasAttribute(name)) old.removeAttribute(name);
    for (const { name, value } of next.attributes)
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    morph(old, next);
  } else old.replaceWith(next);
}
