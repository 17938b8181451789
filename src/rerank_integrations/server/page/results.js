// The three columns of a comparison. Texts become text nodes, never markup.

const KINDS = {
  "bi-encoder": {
    title: "Bi-encoder",
    about: "One vector per passage. Fast, but a passage is a single point.",
  },
  "cross-encoder": {
    title: "Cross-encoder",
    about: "Reads question and passage together. Accurate, but only for a few candidates.",
  },
  colbert: {
    title: "ColBERT",
    about: "One vector per token. Each word of the question looks for its best match.",
  },
};
const SCALES = {
  cosine: "cosine",
  maxsim_sum: "MaxSim",
  maxsim_mean: "mean MaxSim",
  logit: "logit",
  probability: "probability",
};

/** Return an element with properties and children; strings become text. */
export function element(name, properties = {}, ...children) {
  const { attributes = {}, ...rest } = properties;
  const made = Object.assign(document.createElement(name), rest);
  for (const [key, value] of Object.entries(attributes)) {
    made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

/** Return the title of a generation. */
export function titleOf(generation) {
  return KINDS[generation].title;
}

/** Return a number of milliseconds as text: in seconds from ten seconds on. */
export function formatMs(ms) {
  if (ms >= 10_000) {
    return `${(ms / 1000).toFixed(1)} s`;
  }
  return ms < 10 ? `${ms.toFixed(1)} ms` : `${Math.round(ms).toLocaleString("en")} ms`;
}

/** Return a score as text. */
export function formatScore(score) {
  return score.toFixed(3);
}

/** Return the name of a scale of scores, as far as there is one. */
export function scaleName(scale) {
  return SCALES[scale] ?? "score";
}

/** Return the columns before the first search: what each generation is. */
export function introduction() {
  return Object.entries(KINDS).map(([generation, kind]) =>
    element(
      "section",
      { className: "column", attributes: { "aria-labelledby": `title-${generation}` } },
      element("h3", { id: `title-${generation}` }, kind.title),
      element("p", { className: "about" }, kind.about),
    ),
  );
}

/** Return the columns of an answer of `/v1/compare`; `onOpen` is called with a passage's id. */
export function columns(answer, onOpen) {
  const slowest = Math.max(...answer.generations.map((generation) => generation.ms));
  return answer.generations.map((generation) => column(generation, answer, slowest, onOpen));
}

/** Return links to the columns, with the time of each, for narrow screens. */
export function summary(answer) {
  return answer.generations.map((generation) =>
    element(
      "a",
      { href: `#column-${generation.generation}` },
      element("span", {}, titleOf(generation.generation)),
      element("strong", {}, generation.reason === null ? formatMs(generation.ms) : "–"),
    ),
  );
}

function column(generation, answer, slowest, onOpen) {
  const kind = KINDS[generation.generation];
  const made = element(
    "section",
    {
      className: "column",
      id: `column-${generation.generation}`,
      tabIndex: -1,
      attributes: { "aria-labelledby": `title-${generation.generation}`, "data-generation": generation.generation },
    },
    element("h3", { id: `title-${generation.generation}` }, kind.title),
    element("p", { className: "about" }, kind.about),
  );
  if (generation.model !== null) {
    made.append(element("p", { className: "model" }, "Model: ", element("code", {}, generation.model)));
  }
  if (generation.reason !== null) {
    made.append(unavailable(generation));
    return made;
  }
  made.append(latency(generation, slowest), ...generation.warnings.map((text) => element("p", { className: "hint" }, text)));
  if (generation.hits.length === 0) {
    made.append(element("p", { className: "empty" }, "Nothing was found."));
  } else {
    const items = generation.hits.map((hit) => item(hit, generation, answer, onOpen));
    made.append(element("ol", { className: "hits" }, ...items));
  }
  return made;
}

function unavailable(generation) {
  const box = element("div", { className: "notice" }, element("p", {}, generation.reason));
  if (generation.progress !== null && generation.progress.state === "preparing") {
    box.append(...progressBar(generation.progress));
  }
  return box;
}

/** Return a bar and a sentence that say how far the bi-encoder is. */
export function progressBar(progress) {
  const count = `${progress.encoded.toLocaleString("en")} of ${progress.passages.toLocaleString("en")} passages`;
  const bar = element("progress", {
    max: Math.max(1, progress.passages),
    value: progress.encoded,
    attributes: { "aria-label": "Passages encoded by the bi-encoder" },
  });
  return [bar, element("p", { className: "hint", id: "progress-count" }, count)];
}

function latency(generation, slowest) {
  const bar = element("div", { className: "bar", attributes: { "aria-hidden": "true" } });
  for (const stage of generation.stages) {
    const part = element("span", { className: stage.name });
    part.style.setProperty("--share", `${(100 * stage.ms) / Math.max(slowest, 0.001)}%`);
    bar.append(part);
  }
  return element(
    "div",
    { className: "latency" },
    element("p", {}, element("strong", {}, formatMs(generation.ms))),
    bar,
    element("p", { className: "hint stages" }, stagesText(generation)),
  );
}

function stagesText(generation) {
  return generation.stages
    .map((stage) => {
      if (stage.name === "rerank") {
        return `${formatMs(stage.ms)} to read ${stage.passages}`;
      }
      return generation.candidates_from === null
        ? `to find ${stage.passages} passages`
        : `${formatMs(stage.ms)} for candidates of ${theTitle(generation.candidates_from)}`;
    })
    .join(" + ");
}

function theTitle(generation) {
  return generation === "colbert" ? "ColBERT" : `the ${titleOf(generation).toLowerCase()}`;
}

function item(hit, generation, answer, onOpen) {
  const passage = answer.passages[hit.id];
  const text = passage?.text ?? "";
  const opener = element(
    "button",
    {
      type: "button",
      className: "open",
      onclick: () => onOpen(hit.id, opener),
      attributes: { "aria-haspopup": "dialog" },
    },
    element("span", { className: "rank" }, element("span", { className: "spoken" }, "Rank "), String(hit.rank)),
    " ",
    element("bdi", { className: "id" }, hit.id),
  );
  return element(
    "li",
    { className: "hit", attributes: { "data-id": hit.id } },
    element("h4", {}, opener),
    element("p", { className: "text", dir: "auto" }, text.trim() === "" ? "(a passage without text)" : text),
    element("ul", { className: "facts" }, score(hit, generation), ...moves(hit, generation, answer)),
  );
}

function score(hit, generation) {
  return element(
    "li",
    {},
    element("span", { className: "spoken" }, "Score "),
    element("b", {}, formatScore(hit.score)),
    ` ${scaleName(generation.score_scale)}`,
  );
}

/** Return the ranks of a hit in the other generations; arrows compare with where it comes from. */
function moves(hit, generation, answer) {
  const others = Object.keys(hit.ranks).filter((name) => name !== generation.generation);
  const base = others.includes("bi-encoder") ? "bi-encoder" : generation.candidates_from;
  return others.map((name) => move(hit, name, name === base, answer.depth));
}

function move(hit, name, isBase, depth) {
  const rank = hit.ranks[name];
  const title = `${titleOf(name)} `;
  if (rank === null) {
    return element("li", {}, title, element("span", { className: isBase ? "up" : "" }, `not in its best ${depth}`));
  }
  const shown = element("li", {}, title, element("b", {}, String(rank)));
  if (isBase) {
    shown.append(" ", arrow(rank - hit.rank));
  }
  return shown;
}

function arrow(up) {
  const [className, sign, words] =
    up > 0 ? ["up", `▲${up}`, `up ${up}`] : up < 0 ? ["down", `▼${-up}`, `down ${-up}`] : ["same-rank", "=", "the same"];
  return element(
    "span",
    { className },
    element("span", { attributes: { "aria-hidden": "true" } }, sign),
    element("span", { className: "spoken" }, words),
  );
}
