// A part of the page that is loaded when it is first shown.
import { useSignal } from "@preact/signals";
import type { ComponentType } from "preact";
import { useEffect } from "preact/hooks";
import { notify } from "../notices";

interface Props {
  load: () => Promise<ComponentType>;
  failed?: () => void;
}

export function Later({ load, failed }: Props) {
  const part = useSignal<ComponentType | null>(null);
  useEffect(() => {
    const sorry = () => (failed?.(), notify("This could not be loaded. Try again."));
    void load().then((loaded) => (part.value = loaded), sorry);
  }, []);
  return part.value && <part.value />;
}
