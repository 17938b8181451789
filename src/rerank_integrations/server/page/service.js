// Calls of the service, and its errors in plain words.

const TOKEN = "rerank-integrations-token";

/** An error to show: `message` is for people, `code` for programs. */
export class Problem extends Error {
  constructor(message, code) {
    super(message);
    this.code = code;
  }
}

/** Return the token of this tab, or an empty string. */
export function storedToken() {
  return sessionStorage.getItem(TOKEN) ?? "";
}

/** Keep a token in this tab; an empty one is removed. */
export function storeToken(token) {
  if (token) {
    sessionStorage.setItem(TOKEN, token);
  } else {
    sessionStorage.removeItem(TOKEN);
  }
}

/**
 * Return the JSON that the service answers; raise a `Problem` otherwise.
 *
 * The address is relative, so that the service may be mounted below another path.
 */
export async function call(method, path, { parameters = {}, json, body, signal } = {}) {
  const headers = new Headers();
  if (storedToken()) {
    headers.set("Authorization", `Bearer ${encodeToken(storedToken())}`);
  }
  if (json !== undefined) {
    headers.set("Content-Type", "application/json");
  } else if (body !== undefined) {
    headers.set("Content-Type", "application/octet-stream");
  }
  const url = new URL(path, document.baseURI);
  url.search = new URLSearchParams(parameters).toString();
  let response;
  try {
    response = await fetch(url, { method, headers, signal, body: json === undefined ? body : JSON.stringify(json) });
  } catch (error) {
    if (error.name === "AbortError") {
      throw error;
    }
    throw new Problem("The server cannot be reached. Is it still running?", "unreachable");
  }
  if (!response.ok) {
    throw await problemOf(response);
  }
  return response.json();
}

/** A header holds bytes: those of UTF-8, which the server compares. */
function encodeToken(token) {
  return Array.from(new TextEncoder().encode(token), (byte) => String.fromCharCode(byte)).join("");
}

async function problemOf(response) {
  const answer = await response.json().catch(() => ({}));
  const code = answer.code ?? `status ${response.status}`;
  const seconds = response.headers.get("Retry-After");
  const known = {
    unauthorized: "The server asks for a token.",
    too_many_requests: `The server is busy. Try again in ${seconds === "1" ? "a second" : `${seconds ?? "a few"} seconds`}.`,
    timeout: "The answer took too long. Try fewer candidates, or try again.",
    read_only: "This server is read-only. Start it with --writable to add documents.",
    body_too_large: "The file is larger than this server accepts.",
    body_timeout: "The file took too long to arrive. Try again, or try a smaller one.",
    out_of_memory: "The server has too little memory for this now. Try again later, or ask for less.",
    internal_error: "The server failed to answer; its log says why.",
  };
  const message = known[code] ?? answer.message ?? `The server answered with the status ${response.status}.`;
  return new Problem(message, code);
}
