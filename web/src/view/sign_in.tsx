// The question before a sign-in link is used: which account, and whether the guest's conversations
// move to it.
import { useId, useLayoutEffect, useRef } from "preact/hooks";
import { signInQuestion } from "../session";
import { bringLabel } from "../state/sign_in";

export function SignIn() {
  const question = signInQuestion.value;
  const element = useRef<HTMLDialogElement>(null);
  const heading = useRef<HTMLHeadingElement>(null);
  const bring = useRef<HTMLInputElement>(null);
  const id = useId();
  useLayoutEffect(() => {
    element.current?.showModal();
    // not a button: a key pressed before the question was read must not answer it
    heading.current?.focus();
  }, []);
  if (!question) return null;
  const label = bringLabel(question);
  const confirm = () => question.answer({ bringConversations: bring.current?.checked ?? false });
  return (
    <dialog
      ref={element}
      class="sign-in"
      aria-labelledby={id}
      onCancel={() => question.answer(null)}
    >
      <form class="dialog" onSubmit={(event) => (event.preventDefault(), confirm())}>
        <h2 id={id} ref={heading} tabIndex={-1}>
          Sign in as {question.email}?
        </h2>
        <p>
          Continue only if you asked for this link. After that, everything you write belongs to this
          account.
        </p>
        {label && (
          <label class="switch">
            <input ref={bring} type="checkbox" />
            <span>
              {label}{" "}
              <small>They move to this account. Otherwise they can no longer be opened.</small>
            </span>
          </label>
        )}
        <div class="buttons">
          <button type="submit" class="button primary">
            Sign in
          </button>
          <button type="button" class="button" onClick={() => question.answer(null)}>
            Cancel
          </button>
        </div>
      </form>
    </dialog>
  );
}
