// The model of the open conversation.
import { chooseModel, modelHere, models } from "../models";

export function ModelPicker() {
  const here = modelHere.value;
  const known = models.value.some(({ id }) => id === here);
  if (!models.value.length) return <span class="picker" />;
  return (
    <label class="picker">
      <span class="unseen">Model</span>
      <select value={here} onChange={(event) => chooseModel(event.currentTarget.value)}>
        {!known && here && <option value={here}>{here}</option>}
        {models.value.map(({ id, name, provider }) => (
          <option key={id} value={id}>
            {provider === id ? id : name}{" "}
            {provider !== id && provider !== name ? `· ${provider}` : ""}
          </option>
        ))}
      </select>
    </label>
  );
}
