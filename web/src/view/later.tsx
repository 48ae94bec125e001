// Parts of the page that are loaded when the first of them is shown.
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { notify } from "../notices";

interface Props {
  part: "Dialogs" | "Results" | "SignIn";
  failed?: () => void;
}

export function Later({ part, failed }: Props) {
  const loaded = useSignal<typeof import("./dialogs") | null>(null);
  useEffect(() => {
    const sorry = () => (failed?.(), notify("This could not be loaded. Try again."));
    void import("./dialogs").then((parts) => (loaded.value = parts), sorry);
  }, []);
  const Part = loaded.value?.[part];
  return Part ? <Part /> : null;
}
