// The editor of questions: completes keys, fields, metrics, operators and a few values where the caret stands, marks
// the place of an error, formats, asks with Ctrl+Enter, and saves a question under a name. Without it the form works.
const LOGICAL = new Set(["$and", "$or", "$nor"]);

/** Where the caret stands: the keys that lead there, the word that is being written, whether it is a key. */
export function contextAt(text, caret) {
  const stack = [];
  let key = null;
  let at = 0;
  while (at < caret) {
    const character = text[at];
    const top = stack.at(-1);
    if (character === '"') {
      let end = at + 1;
      while (end < text.length && text[end] !== '"' && text[end] !== "\n") end += text[end] === "\\" ? 2 : 1;
      const isKey = top?.kind === "{" && !top.hasColon;
      if (end >= caret) {
        // A word that is still being written has no end of its own yet.
        const rest = text.slice(caret).search(/["\n,:}\]]/);
        return {
          inWord: true, isKey, start: at + 1, end: rest < 0 ? text.length : caret + rest, word: text.slice(at + 1, caret),
          ...path(),
        };
      }
      if (isKey) key = text.slice(at + 1, end);
      at = end;
    } else if (character === "{" || character === "[") {
      stack.push({ kind: character, key, hasColon: false });
      key = null;
    } else if (character === "}" || character === "]") {
      stack.pop();
    } else if (character === ":" && top) {
      top.hasColon = true;
      top.current = key;
    } else if (character === "," && top) {
      top.hasColon = false;
      top.current = null;
      key = null;
    }
    at += 1;
  }
  const top = stack.at(-1);
  const isKey = top?.kind === "{" && !top.hasColon;
  return { inWord: false, isKey, start: caret, end: caret, word: "", ...path() };

  function path() {
    const keys = stack.slice(1).map((each, index) => stack[index].current ?? each.key).filter((each) => each !== null);
    return { keys, current: stack.at(-1)?.current ?? null, depth: stack.length };
  }
}

/** What can stand where the caret is: a list of {word, what}. */
export function candidates(context, words) {
  const plain = (list, what) => list.map((word) => ({ word, what }));
  const { keys, isKey, current, depth } = context;
  if (depth === 0) return [];
  const part = { pipeline: "pipeline", stage: "stage", stages: "stage", candidate: "candidate" }[keys[0]];
  if (!isKey) {
    const name = current?.startsWith("$") ? keys.at(-1) : (current ?? keys.at(-1));
    if (keys[0] === "sort" || name === "group_by" || name === "fields") return [];
    return plain(words.values[name] ?? [], name ?? "");
  }
  if (keys.length === 0) return plain(words.keys, "part of a question");
  if (keys[0] === "sort") {
    return [...words.metrics, ...plain([...new Set([...words.pipeline, ...words.stage])], "field")];
  }
  if (part === undefined) return [];
  const inner = keys.slice(1).filter((key) => !LOGICAL.has(key));
  if (inner.length > 0) return plain(words.operators, "operator");
  const fields = plain(words[part], "field");
  return [...fields, ...(part === "stage" ? words.metrics : []), ...plain(words.logical, "operator")];
}

/** Those that go with what is written: beginnings first, then what has it somewhere. */
export function matching(list, word, most = 12) {
  const bare = (text) => text.replace(/[$_]/g, "").toLowerCase();
  const wanted = bare(word);
  const named = list.filter((each) => !word.startsWith("$") || each.word.startsWith("$"));
  const first = named.filter((each) => bare(each.word).startsWith(wanted));
  const other = named.filter((each) => !first.includes(each) && bare(each.word).includes(wanted));
  return [...first, ...other].slice(0, most);
}

class Editor {
  constructor(form) {
    this.form = form;
    this.area = form.querySelector("textarea");
    this.list = form.querySelector("[role=listbox]");
    this.words = JSON.parse(form.querySelector("[data-words]").textContent);
    this.shown = [];
    this.at = 0;
    this.area.setAttribute("aria-autocomplete", "list");
    this.area.setAttribute("aria-controls", this.list.id);
    this.area.addEventListener("input", () => this.suggest(false));
    this.area.addEventListener("keydown", (event) => this.onKey(event));
    this.area.addEventListener("blur", () => this.close());
    this.area.addEventListener("scroll", () => this.list.hidden || this.place(this.area.selectionStart));
    this.list.addEventListener("mousedown", (event) => {
      event.preventDefault();
      const item = event.target.closest("li");
      if (item) this.accept([...this.list.children].indexOf(item));
    });
    const format = form.querySelector("[data-format]");
    format.hidden = false;
    format.addEventListener("click", () => this.format());
    const { from, to } = this.area.dataset;
    if (from !== undefined) {
      this.area.focus();
      this.area.setSelectionRange(Number(from), Number(to));
    }
  }

  onKey(event) {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      this.form.requestSubmit();
    } else if (event.key === " " && event.ctrlKey) {
      event.preventDefault();
      this.suggest(true);
    } else if (!this.list.hidden) {
      this.onListKey(event);
    }
  }

  onListKey(event) {
    if (event.key === "Escape") this.close();
    else if (event.key === "ArrowDown") this.select(this.at + 1);
    else if (event.key === "ArrowUp") this.select(this.at - 1);
    else if (event.key === "Enter" || event.key === "Tab") this.accept(this.at);
    else return;
    event.preventDefault();
  }

  suggest(wanted) {
    const caret = this.area.selectionStart;
    this.context = contextAt(this.area.value, caret);
    const { inWord, word } = this.context;
    if (!wanted && (!inWord || word === "")) return this.close();
    const found = matching(candidates(this.context, this.words), word);
    if (found.length === 0 || (!wanted && found.length === 1 && found[0].word === word)) return this.close();
    this.shown = found;
    this.list.replaceChildren(...found.map((each, index) => option(each, index)));
    this.list.hidden = false;
    this.place(caret);
    this.select(0);
  }

  place(caret) {
    const styles = getComputedStyle(this.area);
    const before = this.area.value.slice(0, caret).split("\n");
    const line = parseFloat(styles.lineHeight);
    this.canvas ??= document.createElement("canvas").getContext("2d");
    this.canvas.font = `${styles.fontSize} ${styles.fontFamily}`;
    const wide = this.canvas.measureText(before.at(-1)).width;
    const left = parseFloat(styles.paddingLeft) + wide - this.area.scrollLeft;
    const top = parseFloat(styles.paddingTop) + before.length * line - this.area.scrollTop + 2;
    this.list.style.left = `${Math.max(0, Math.min(left, this.area.clientWidth - this.list.offsetWidth))}px`;
    this.list.style.top = `${Math.min(top, this.area.clientHeight)}px`;
  }

  select(index) {
    this.at = (index + this.shown.length) % this.shown.length;
    [...this.list.children].forEach((item, each) => item.setAttribute("aria-selected", String(each === this.at)));
    this.list.children[this.at].scrollIntoView({ block: "nearest" });
    this.area.setAttribute("aria-activedescendant", `completion-${this.at}`);
  }

  accept(index) {
    const { word } = this.shown[index];
    const { inWord, isKey, start, end } = this.context;
    const text = this.area.value;
    // Up to the end of the word that is there; its closing quote stays where it has one.
    const closed = inWord && text[end] === '"';
    const rest = text.slice(end);
    const isOpen = word.endsWith(".");
    const colon = isKey && !isOpen && !/^"?\s*:/.test(rest) ? ": " : "";
    const put = (inWord ? "" : '"') + word + (closed ? "" : '"');
    const to = closed ? end + 1 : end;
    this.area.setRangeText(put + (closed ? '"' : "") + colon, start, to, "end");
    if (isOpen) this.area.selectionEnd = this.area.selectionStart -= 1;
    this.close();
    this.area.focus();
  }

  close() {
    this.list.hidden = true;
    this.area.removeAttribute("aria-activedescendant");
  }

  format() {
    try {
      this.area.value = pretty(JSON.parse(this.area.value), 0);
    } catch {
      this.form.requestSubmit(); // The service says what is wrong, and where.
    }
    this.area.focus();
  }
}

function option(each, index) {
  const item = document.createElement("li");
  item.id = `completion-${index}`;
  item.setAttribute("role", "option");
  for (const text of [each.word, each.what]) item.append(Object.assign(document.createElement("span"), { textContent: text }));
  return item;
}

/** JSON in lines of a width that people read; what is short stays on one line. */
function pretty(value, indent) {
  const flat = JSON.stringify(value);
  const pad = " ".repeat(indent + 2);
  if (value === null || typeof value !== "object" || flat.length + indent <= 72) return spaced(value);
  const entries = Array.isArray(value)
    ? value.map((each) => pad + pretty(each, indent + 2))
    : Object.entries(value).map(([key, each]) => `${pad}${JSON.stringify(key)}: ${pretty(each, indent + 2)}`);
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  return `${open}\n${entries.join(",\n")}\n${" ".repeat(indent)}${close}`;
}

function spaced(value) {
  if (Array.isArray(value)) return `[${value.map(spaced).join(", ")}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  return `{${Object.entries(value).map(([key, each]) => `${JSON.stringify(key)}: ${spaced(each)}`).join(", ")}}`;
}

/** Saving under a name; what became of it is said beside the button. */
function prepareSaving(form) {
  const said = form.parentElement.querySelector("[data-saved]");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const given = new FormData(form);
    const name = String(given.get("name")).trim();
    const body = { [form.dataset.form]: JSON.parse(form.querySelector("[data-question]").textContent) };
    const description = String(given.get("description")).trim();
    if (description) body.description = description;
    said.textContent = "Saving …";
    try {
      const response = await fetch(`/v1/questions/${encodeURIComponent(name)}`, {
        method: "PUT", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
      });
      if (!response.ok) throw new Error((await response.json()).error.message);
      const link = Object.assign(document.createElement("a"), { textContent: name });
      link.href = `/query?${new URLSearchParams({ saved: name })}`;
      said.replaceChildren("Saved as ", link, ".");
    } catch (error) {
      said.textContent = `It could not be saved: ${error.message}`;
    }
  });
}

/** Deleting a saved question: the first click asks, the second one does it. */
function prepareDeleting(button) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    if (button.dataset.sure === undefined) {
      button.dataset.sure = "";
      button.textContent = "Delete it for good";
      return;
    }
    const response = await fetch(`/v1/questions/${encodeURIComponent(button.dataset.delete)}`, { method: "DELETE" });
    if (response.ok) location.assign("/query");
    else button.textContent = "It could not be deleted";
  });
}

for (const button of document.querySelectorAll("[data-delete]")) prepareDeleting(button);
for (const form of document.querySelectorAll("[data-editor]")) new Editor(form);
for (const form of document.querySelectorAll("[data-save]")) prepareSaving(form);
