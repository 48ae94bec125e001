// A menu button; its menu is in the browser's top layer and works by pointer and keyboard.
import { useId, useRef } from "preact/hooks";
import { Icon, type IconName } from "./icon";

export interface MenuItem {
  label: string;
  do: () => void;
  danger?: boolean;
}

export function Menu({
  label,
  icon = "more",
  items,
}: {
  label: string;
  icon?: IconName;
  items: MenuItem[];
}) {
  const id = useId();
  const button = useRef<HTMLButtonElement>(null);
  const list = useRef<HTMLDivElement>(null);
  const toggle = () => {
    const menu = list.current!;
    menu.togglePopover();
    if (!menu.matches(":popover-open")) return;
    place(menu, button.current!.getBoundingClientRect());
    menu.querySelector("button")?.focus();
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const buttons = [...list.current!.querySelectorAll("button")];
    const at = buttons.indexOf(document.activeElement as HTMLButtonElement);
    buttons[(at + step + buttons.length) % buttons.length]?.focus();
  };
  const choose = (item: MenuItem) => {
    list.current!.hidePopover();
    button.current!.focus();
    item.do();
  };
  return (
    <>
      <button
        ref={button}
        type="button"
        class="icon-button"
        aria-label={label}
        title={label}
        aria-haspopup="menu"
        aria-controls={id}
        onClick={toggle}
      >
        <Icon name={icon} />
      </button>
      <div
        ref={list}
        id={id}
        class="menu"
        role="menu"
        popover="auto"
        aria-label={label}
        onKeyDown={onKeyDown}
      >
        {items.map((item) => (
          <button
            key={item.label}
            type="button"
            role="menuitem"
            class={item.danger ? "danger" : undefined}
            onClick={() => choose(item)}
          >
            {item.label}
          </button>
        ))}
      </div>
    </>
  );
}

/**
 * Positions the menu below the button, or above it if there is no room; never outside the window.
 */
function place(menu: HTMLElement, at: DOMRect): void {
  const { offsetWidth: width, offsetHeight: height } = menu;
  const below = at.bottom + 4 + height < innerHeight;
  menu.style.left = `${Math.max(8, Math.min(at.right - width, innerWidth - width - 8))}px`;
  menu.style.top = `${below ? at.bottom + 4 : Math.max(8, at.top - height - 4)}px`;
}
