// Shows when the page is not receiving updates.
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { notify } from "../notices";
import type { Link } from "../stream";

const held = "Live updates are blocked by something between you and the server.";
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
  const polling = link === "polling";
  const away = link === "lost" || polling || offline.value;
  useEffect(() => {
    if (!away) return void (late.value = false);
    const timer = setTimeout(() => (late.value = true), shown_after_ms);
    return () => clearTimeout(timer);
  }, [away]);
  useEffect(() => void (polling && notify(held)), [polling]);
  const sign = offline.value ? "Offline" : polling ? "Delayed" : "Reconnecting…";
  return (
    <span class={late.value ? "link-sign shown" : "link-sign"} role="status">
      {late.value && sign}
    </span>
  );
}
