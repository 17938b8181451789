// The page: its forms, what they ask of the service, and the dialog of a passage.

import { heatMap } from "./heat_map.js";
import {
  columns,
  element,
  formatMs,
  formatScore,
  introduction,
  progressBar,
  scaleName,
  summary,
  titleOf,
} from "./results.js";
import { call, storedToken, storeToken } from "./service.js";

const POLL_MS = 1500;
const byId = (id) => document.getElementById(id);

let service = null;
let answer = null;
let searching = null;
let explaining = null;
let opener = null;
let polling = null;

// --- what the server has ---

async function connect() {
  try {
    service = await call("GET", "v1/service");
  } catch (error) {
    if (error.code !== "unauthorized") {
      showProblem(error);
      return;
    }
    askForToken(storedToken() ? "The server did not accept this token." : "");
    return;
  }
  byId("access").hidden = true;
  byId("access-problem").textContent = "";
  byId("forget").hidden = !storedToken();
  byId("version").textContent = `rerank_integrations ${service.version}`;
  showProblem(null);
  showIndexes();
  showRerankers();
  showDocuments();
  restore();
}

function askForToken(problem) {
  byId("access").hidden = false;
  byId("access-problem").textContent = problem;
  byId("token").focus();
}

function showIndexes() {
  const select = byId("index");
  const chosen = select.value;
  select.replaceChildren(
    ...service.indexes.map((index) =>
      element("option", { value: index.name }, `${index.name} (${count(index.passages, "passage")})`),
    ),
  );
  if (service.indexes.some((index) => index.name === chosen)) {
    select.value = chosen;
  }
  byId("ask").disabled = service.indexes.length === 0;
  if (service.indexes.length === 0) {
    select.append(element("option", {}, "none"));
    say("This server has no index to search. Start it with one: rerank-integrations serve my_index");
  } else if (service.status === "loading") {
    say("The server is still loading its models. The first answer takes longer.");
  } else {
    say(chosenIndex().passages === 0 ? "This index has no passages yet. Add documents to it below." : "");
  }
}

function showRerankers() {
  byId("reranker-label").hidden = service.rerankers.length < 2;
  byId("reranker").replaceChildren(...service.rerankers.map((name) => element("option", { value: name }, name)));
}

function showDocuments() {
  const canStore = service.writable && service.indexes.length > 0;
  byId("upload").hidden = !canStore;
  byId("files").accept = service.files.join(",");
  byId("documents-hint").textContent = canStore
    ? `Their passages are stored in the index that is chosen above. Kinds: ${service.files.join(" ")}, up to ${megabytes(service.max_body_bytes)} each.`
    : "This server is read-only. Start it with --writable to add documents.";
}

function chosenIndex() {
  return service.indexes.find((index) => index.name === byId("index").value);
}

// --- searching ---

async function search() {
  const query = byId("question").value;
  if (service === null || query.trim() === "") {
    byId("question").focus();
    return;
  }
  searching?.abort();
  searching = new AbortController();
  const { signal } = searching;
  remember();
  showProblem(null);
  say("Searching…");
  byId("results").setAttribute("aria-busy", "true");
  try {
    const candidates = Math.max(Number(byId("candidates").value), 1);
    const request = {
      query,
      index: byId("index").value,
      k: Math.min(Number(byId("count").value), service.max_k),
      candidates: Math.min(candidates, service.max_texts, service.max_k),
    };
    if (service.rerankers.length > 1) {
      request.reranker = byId("reranker").value;
    }
    answer = { ...(await call("POST", "v1/compare", { json: request, signal })), query };
    showAnswer();
    bringIntoView();
  } catch (error) {
    if (error.name !== "AbortError") {
      say("");
      showProblem(error);
    }
  } finally {
    if (!signal.aborted) {
      byId("results").setAttribute("aria-busy", "false");
    }
  }
}

function showAnswer() {
  byId("columns").replaceChildren(...columns(answer, openPassage));
  byId("summary").replaceChildren(...summary(answer));
  byId("summary").hidden = false;
  const ranked = answer.generations.filter((generation) => generation.reason === null);
  const found = Object.keys(answer.passages).length;
  say(
    found === 0
      ? emptyAnswer()
      : `${count(found, "passage")} found: ${ranked.map((item) => `${titleOf(item.generation)} in ${formatMs(item.ms)}`).join(", ")}.`,
  );
  followProgress();
}

/** On a narrow screen the results begin below the form, and a keyboard on the screen covers them. */
function bringIntoView() {
  if (matchMedia("(pointer: coarse)").matches) {
    byId("question").blur();
  }
  if (matchMedia("(max-width: 44rem)").matches) {
    byId("results").scrollIntoView({ block: "start" });
  }
}

function emptyAnswer() {
  return chosenIndex().passages === 0
    ? "This index has no passages yet. Add documents to it below."
    : "Nothing was found.";
}

/** While the bi-encoder encodes the index, show how far it is. */
function followProgress() {
  clearTimeout(polling);
  const waiting = answer.generations.find((generation) => generation.progress?.state === "preparing");
  if (waiting) {
    polling = setTimeout(() => showProgress(answer.index), POLL_MS);
  }
}

async function showProgress(name) {
  let progress = null;
  try {
    const now = await call("GET", "v1/service");
    progress = now.indexes.find((index) => index.name === name)?.progress ?? null;
  } catch {
    // The next search reports what is wrong.
    return;
  }
  const box = document.querySelector("#column-bi-encoder .notice");
  if (box === null || progress === null || answer.index !== name) {
    return;
  }
  if (progress.state === "preparing") {
    box.replaceChildren(box.firstChild, ...progressBar(progress));
    polling = setTimeout(() => showProgress(name), POLL_MS);
  } else {
    box.replaceChildren(element("p", {}, "The bi-encoder is ready. Search again to see its column."));
    say("The bi-encoder is ready. Search again to see its column.");
  }
}

/** Mark the same passage in every column. */
function markSame(event) {
  const id = event.target.closest?.(".hit")?.dataset.id;
  for (const hit of document.querySelectorAll(".hit")) {
    hit.classList.toggle("same", id !== undefined && hit.dataset.id === id);
  }
}

// --- a passage ---

async function openPassage(id, button) {
  opener = button;
  explaining?.abort();
  explaining = new AbortController();
  const { signal } = explaining;
  const passage = answer.passages[id];
  const matches = element("div", { attributes: { role: "status" } }, "Asking ColBERT which words match…");
  byId("passage-title").textContent = id;
  byId("passage-body").replaceChildren(ranksOf(id), matches, ...metadataOf(passage.metadata));
  byId("passage").showModal();
  try {
    const json = { query: answer.query, id, index: answer.index };
    const explanation = await call("POST", "v1/explain", { json, signal });
    matches.removeAttribute("role");
    matches.replaceChildren(...heatMap(explanation));
  } catch (error) {
    if (error.name !== "AbortError") {
      matches.replaceChildren(
        element("p", { className: "problem" }, `There is no heat map: ${error.message}`),
        element("div", { className: "heat", dir: "auto" }, passage.text),
      );
    }
  }
}

function ranksOf(id) {
  const rows = answer.generations
    .filter((generation) => generation.reason === null)
    .map((generation) => {
      const hit = generation.hits.find((item) => item.id === id);
      const rank = rankIn(generation.generation, id);
      return element(
        "tr",
        {},
        element("th", { scope: "row" }, titleOf(generation.generation)),
        element("td", { className: "number" }, rank === null ? `not in its best ${answer.depth}` : String(rank)),
        element("td", { className: "number" }, hit ? `${formatScore(hit.score)} ${scaleName(generation.score_scale)}` : "–"),
      );
    });
  const head = ["generation", "rank", "score"].map((name) => element("th", { scope: "col" }, name));
  return element(
    "table",
    { className: "ranks" },
    element("caption", { className: "spoken" }, "Ranks and scores of this passage"),
    element("thead", {}, element("tr", {}, ...head)),
    element("tbody", {}, ...rows),
  );
}

function rankIn(generation, id) {
  const hits = answer.generations.flatMap((item) => item.hits);
  return hits.find((hit) => hit.id === id)?.ranks[generation] ?? null;
}

function metadataOf(metadata) {
  const entries = Object.entries(metadata);
  if (entries.length === 0) {
    return [];
  }
  const shown = entries.flatMap(([key, value]) => [
    element("dt", {}, key),
    element("dd", { dir: "auto" }, typeof value === "string" ? value : JSON.stringify(value)),
  ]);
  return [element("details", {}, element("summary", {}, "Metadata"), element("dl", {}, ...shown))];
}

// --- documents ---

async function storeFiles() {
  const input = byId("files");
  const index = byId("index").value;
  byId("store").disabled = true;
  byId("stored").replaceChildren();
  for (const file of input.files) {
    const line = element("li", {}, element("bdi", {}, file.name), ": storing…");
    byId("stored").append(line);
    const message = await storeFile(file, index);
    line.lastChild.textContent = `: ${message.text}`;
    line.className = message.failed ? "problem" : "";
  }
  byId("store").disabled = false;
  input.value = "";
  await refreshCounts();
}

async function storeFile(file, index) {
  if (file.size > service.max_body_bytes) {
    return { failed: true, text: `it is larger than ${megabytes(service.max_body_bytes)}, the most that this server accepts.` };
  }
  try {
    const stored = await call("PUT", "v1/files", { parameters: { name: file.name, index }, body: file });
    const removed = stored.removed > 0 ? `, ${count(stored.removed, "earlier one")} removed` : "";
    return { failed: false, text: `${count(stored.passages, "passage")} stored in ${stored.index}${removed}.` };
  } catch (error) {
    return { failed: true, text: error.message };
  }
}

async function refreshCounts() {
  try {
    service = await call("GET", "v1/service");
    showIndexes();
  } catch (error) {
    showProblem(error);
  }
}

// --- small things ---

function say(text) {
  byId("status").textContent = text;
}

function showProblem(error) {
  byId("problem").textContent = error === null ? "" : error.message;
  if (error?.code === "unauthorized") {
    askForToken("");
  }
}

function count(number, noun) {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}

function megabytes(bytes) {
  return bytes < 2 ** 20 ? `${Math.max(1, Math.floor(bytes / 1024))} KB` : `${Math.floor(bytes / 2 ** 20)} MB`;
}

/** Keep question and index in the part of the address that is never sent. */
function remember() {
  const state = new URLSearchParams({ q: byId("question").value, index: byId("index").value });
  history.replaceState(null, "", `#${state}`);
}

function restore() {
  const state = new URLSearchParams(location.hash.slice(1));
  if (service.indexes.some((index) => index.name === state.get("index"))) {
    byId("index").value = state.get("index");
  }
  if (state.get("q")) {
    byId("question").value = state.get("q");
    search();
  }
}

function handle(form, action) {
  byId(form).addEventListener("submit", (event) => {
    event.preventDefault();
    action();
  });
}

byId("index").addEventListener("change", () => {
  say(chosenIndex()?.passages === 0 ? "This index has no passages yet. Add documents to it below." : "");
});
handle("search", search);
handle("upload", storeFiles);
handle("access-form", () => {
  storeToken(byId("token").value.trim());
  byId("token").value = "";
  connect();
});
byId("forget").addEventListener("click", () => {
  storeToken("");
  location.reload();
});
byId("close").addEventListener("click", () => byId("passage").close());
byId("passage").addEventListener("close", () => {
  explaining?.abort();
  opener?.focus();
});
// A click beside the dialog closes it.
byId("passage").addEventListener("click", (event) => {
  if (event.target === byId("passage")) {
    byId("passage").close();
  }
});
for (const kind of ["mouseover", "focusin"]) {
  byId("columns").addEventListener(kind, markSame);
}
byId("columns").replaceChildren(...introduction());
connect();
