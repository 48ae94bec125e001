// The path under which the server is reached: pages may be served below one, e.g. /chat/.

const base = document.querySelector("base")?.href ?? location.origin; // none in development

const root = new URL(base).pathname.replace(/\/$/, "");

/** The address of a path of the server. */
export const at = (path: string): string => root + path;

/** The path of this page on the server. */
export const herePath = (): string => location.pathname.slice(root.length) || "/";
