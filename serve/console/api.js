// Calls of the API. A key, where the service asks for one, lies in this tab's storage alone and
// never in an address.

const KEY = "longreel.key";
let asking = null;
let dismissed = false;
let askForKey = async () => null;

/** `ask(wrong)` opens the question for a key and resolves to it, or to null. */
export function onKeyNeeded(ask) {
  askForKey = ask;
}

/** What the service refused, as its error said it; `status` is 0 where nothing answered. */
export class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    Object.assign(this, { status, code });
  }
}

export const key = () => sessionStorage.getItem(KEY);

/** Have the user give a key, once for all who need it; whether there is a new one. Who said "not
 *  now" is asked again only by `again`, which stands for a click. */
export async function needKey(again = false) {
  if (dismissed && !again) return false;
  asking ??= askForKey(Boolean(key())).finally(() => { asking = null; });
  const given = await asking;
  dismissed = !given;
  if (given) sessionStorage.setItem(KEY, given);
  return Boolean(given);
}

const address = (path) => new URL(path, document.baseURI);

/** The reply's JSON. `body` is sent as JSON unless it is a form or a blob; `signal` ends the call. */
export async function call(method, path, body, headers = {}, signal = undefined) {
  const plain = body instanceof FormData || body instanceof Blob;
  const sent = { ...headers };
  const used = key();
  if (used) sent.Authorization = `Bearer ${used}`;
  if (body !== undefined && !plain) sent["Content-Type"] = "application/json";
  let reply;
  try {
    reply = await fetch(address(path), {
      method, headers: sent, body: plain || body === undefined ? body : JSON.stringify(body), signal,
    });
  } catch {
    throw new ApiError(0, "connection_lost", "The service does not answer.");
  }
  if (reply.status === 401) {
    // Another call may have been given a key meanwhile.
    if (used !== key() || (await needKey())) return call(method, path, body, headers, signal);
  }
  const text = await reply.text();
  let found = null;
  try { found = text ? JSON.parse(text) : null; } catch { found = null; }
  if (!reply.ok) {
    const error = found?.error ?? {};
    throw new ApiError(reply.status, error.code, error.message ?? `The service said ${reply.status}.`);
  }
  return found;
}

/** A session's WebSocket. Browsers cannot send a header with it, so a key is a subprotocol. */
export function openSocket(session, query) {
  const url = address(`v1/sessions/${encodeURIComponent(session)}/stream?${new URLSearchParams(query)}`);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  return key() ? new WebSocket(url, ["longreel", `longreel-key.${key()}`]) : new WebSocket(url);
}
