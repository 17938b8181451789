// An answer of /v1/explain as a heat map: which words of the passage the words of the question matched.

import { element, formatScore } from "./results.js";

const STRENGTHS = 5;

/** Return the parts of the view; offsets of the service count code points, not UTF-16 units. */
export function heatMap(explanation) {
  const text = element("div", { className: "heat", dir: "auto" });
  fillText(text, explanation);
  return [
    element("p", { className: "hint" }, scoreText(explanation)),
    ...unreadNotes(explanation),
    element("h3", {}, "Question"),
    element(
      "p",
      { className: "hint" },
      "Choose a word to frame what it matched. Stronger colour and a thicker line: a better match.",
    ),
    queryWords(explanation, text),
    element("h3", {}, "Passage"),
    text,
    element("h3", {}, "Matches"),
    table(explanation),
  ];
}

/** Return 1 for a cosine of up to 0.2, 2 for up to 0.4, and so on to 5. */
function strength(cosine) {
  return Math.min(Math.max(Math.ceil(cosine * STRENGTHS), 1), STRENGTHS);
}

function scoreText(explanation) {
  const rest = explanation.score - explanation.explained;
  const start = `ColBERT's score is ${formatScore(explanation.score)}`;
  if (explanation.matches.length === 0) {
    return `${start}; no word of the question has a match.`;
  }
  return Math.abs(rest) < 5e-4
    ? `${start}, all of it from these words.`
    : `${start}: ${formatScore(explanation.explained)} from these words and ${formatScore(rest)} from the model's markers and expansion.`;
}

function unreadNotes(explanation) {
  const notes = [];
  for (const [name, text, readTo] of [
    ["question", explanation.query, explanation.query_read_to],
    ["passage", explanation.text, explanation.read_to],
  ]) {
    if (readTo !== null && readTo !== undefined) {
      const all = Array.from(text).length.toLocaleString("en");
      notes.push(
        element("p", { className: "hint" }, `The model read ${readTo.toLocaleString("en")} of the ${name}'s ${all} characters.`),
      );
    }
  }
  return notes;
}

function queryWords(explanation, text) {
  const row = element("div", { className: "words", dir: "auto" });
  explanation.words.forEach((word, number) => {
    const button = element(
      "button",
      {
        type: "button",
        className: `word s${strength(word.mean)}`,
        attributes: { "aria-pressed": "false" },
        onclick: () => frame(row, text, button, number),
      },
      word.query_word,
    );
    row.append(button);
  });
  return row;
}

function frame(row, text, button, number) {
  const on = button.getAttribute("aria-pressed") !== "true";
  for (const other of row.children) {
    other.setAttribute("aria-pressed", "false");
  }
  button.setAttribute("aria-pressed", String(on));
  for (const mark of text.querySelectorAll("mark")) {
    mark.classList.toggle("framed", on && mark.classList.contains(`q${number}`));
  }
}

/** Return the matched words of the passage in their order, each with the numbers of the words that matched it. */
function textWords(explanation) {
  const byStart = new Map();
  explanation.words.forEach((word, number) => {
    for (const matched of word.matched) {
      if (matched.end > matched.start) {
        const entry = byStart.get(matched.start) ?? { start: matched.start, end: matched.end, cosine: -1, numbers: [] };
        entry.numbers.push(number);
        byStart.set(matched.start, entry);
      }
    }
  });
  const entries = [...byStart.values()].sort((a, b) => a.start - b.start);
  for (const match of explanation.matches) {
    const entry = entries.find((candidate) => match.start >= candidate.start && match.end <= candidate.end && match.end > match.start);
    if (entry) {
      entry.cosine = Math.max(entry.cosine, match.score);
    }
  }
  return entries;
}

function fillText(text, explanation) {
  const characters = Array.from(explanation.text);
  const piece = (start, end) => characters.slice(start, end).join("");
  let position = 0;
  for (const word of textWords(explanation)) {
    text.append(piece(position, word.start));
    const classes = [`s${strength(word.cosine)}`, ...word.numbers.map((number) => `q${number}`)];
    const title = word.numbers.map((number) => explanation.words[number].query_word).join(", ");
    text.append(element("mark", { className: classes.join(" "), title }, piece(word.start, word.end)));
    position = word.end;
  }
  const readTo = explanation.read_to ?? characters.length;
  const end = Math.max(position, readTo);
  text.append(piece(position, end));
  if (end < characters.length) {
    text.append(element("span", { className: "unread" }, element("b", {}, " [not read:] "), piece(end)));
  }
}

function table(explanation) {
  const head = ["question", "matched", "cosine", "adds"].map((name) => element("th", { scope: "col" }, name));
  const rows = explanation.words.map((word) => {
    const matched = word.matched.map((item) => (item.end > item.start ? item.word : `(${item.word})`)).join(", ");
    return element(
      "tr",
      {},
      element("th", { scope: "row" }, element("bdi", {}, word.query_word)),
      element("td", {}, element("bdi", {}, matched)),
      element("td", { className: "number" }, word.mean.toFixed(2)),
      element("td", { className: "number" }, word.score.toFixed(2)),
    );
  });
  return element(
    "table",
    {},
    element("caption", { className: "spoken" }, "Words of the question, what each matched, and what it adds to the score"),
    element("thead", {}, element("tr", {}, ...head)),
    element("tbody", {}, ...rows),
  );
}
