// Shows when the page is not receiving updates.
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import type { Link } from "../stream";

const shown_after_ms = 700; // shorter interruptions are not worth showing

export function ConnectionStatus({ link }: { link: Link }) {
  const late = useSignal(false);
  const offline = useSignal(!navigator.onLine);
  useEffect(() => {
    const look = () => (offline.value = !navigator.onLine);
    addEventListener("online", look);
    addEventListener("offline", look);
    return () => (removeEventListener("online", look), removeEventListener("offline", look));
  }, []);
  const away = link === "lost" || offline.value;
  useEffect(() => {
    if (!away) return void (late.value = false);
    const timer = setTimeout(() => (late.value = true), shown_after_ms);
    return () => clearTimeout(timer);
  }, [away]);
  return (
    <span class={late.value ? "link-sign shown" : "link-sign"} role="status">
      {late.value && (offline.value ? "Offline" : "Reconnecting…")}
    </span>
  );
}
