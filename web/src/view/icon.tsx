// The icons: strokes on a grid of 20.

const paths = {
  menu: "M3 6h14M3 10h14M3 14h9",
  plus: "M10 4v12M4 10h12",
  search: "M9 15A6 6 0 1 0 9 3a6 6 0 0 0 0 12ZM13.5 13.5 17 17",
  more: "M5 10h.01M10 10h.01M15 10h.01",
  up: "M10 16V4.5M5 9.2l5-5 5 5",
  down: "M10 4v11.5M5 10.8l5 5 5-5",
  stop: "M6.5 6.5h7v7h-7z",
  copy: "M7.5 7.5V4h8.5v8.5h-3.5M4 7.5h8.5V16H4z",
  check: "M4.5 10.5l3.5 3.5 7.5-8",
  redo: "M15.5 8A6 6 0 1 0 16 11.5M15.8 4v4.2h-4.2",
  edit: "M4 16l.7-3.4L13 4.3l2.7 2.7-8.3 8.3zM11.4 5.9l2.7 2.7",
  left: "M12 5l-5 5 5 5",
  right: "M8 5l5 5-5 5",
  close: "M5 5l10 10M15 5L5 15",
  pin: "M7 3.5h6l-.7 5 2.7 2.7H5L7.7 8.5zM10 11.2V17",
  gear: "M4 6.5h7M15 6.5h1M4 13.5h1M9 13.5h7M13 8.3a1.8 1.8 0 1 0 0-3.6 1.8 1.8 0 0 0 0 3.6ZM7 15.3a1.8 1.8 0 1 0 0-3.6 1.8 1.8 0 0 0 0 3.6Z",
  info: "M10 17a7 7 0 1 0 0-14 7 7 0 0 0 0 14ZM10 9.2v4.3M10 6.5h.01",
} as const;

export type IconName = keyof typeof paths;

export const Icon = ({ name }: { name: IconName }) => (
  <svg class="icon" viewBox="0 0 20 20" aria-hidden="true">
    <path d={paths[name]} />
  </svg>
);

/** The wordmark: water, and the line it has reached. */
export const Mark = () => (
  <svg class="mark" viewBox="0 0 32 32" aria-hidden="true">
    <path class="reached" d="M5 11h22" />
    <path d="M4 18c4-3.4 8-3.4 12 0s8 3.4 12 0M4 24.500c4-3.400 8-3.400 12 0s8 3.400 12 0" />
  </svg>
);
