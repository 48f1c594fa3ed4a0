// Markdown as DOM nodes. Text never becomes HTML: every node is made by createElement and textContent, so nothing in
// a message can execute. Links lead to http, https and mailto only, and images of a text are links.

// Patterns of one line. None has two ways to match the same text: a line of any length takes a time in proportion.
const BLOCK = {
  fence: /^ {0,3}(`{3,}(?=[^`]*$)|~{3,})\s*([\w+#.-]*)/,
  heading: /^ {0,3}(#{1,6})\s+(.*)$/,
  rule: /^ {0,3}([-*_])(\s*\1){2,}\s*$/,
  quote: /^ {0,3}> ?(.*)$/,
  item: /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/,
  table: /^\|?(\s*:?-+:?\s*\|)+\s*(:?-+:?)?$/, // Without the spaces around it.
};
const INLINE =
  /(?<!`)(`+)(?!`)([\s\S]*?[^`])\1(?!`)|(\*\*|__)(?=\S)([\s\S]*?\S)\3|(\*|_)(?=\S)([\s\S]*?\S)\5(?!\w)|~~(?=\S)([\s\S]*?\S)~~|!?\[([^[\]\n]*)\]\((\S+?)(?:\s+"[^"]*")?\)|(https?:\/\/[^\s<>"')\]]+)|\\([\\`*_{}[\]()#+\-.!|~>])/;
const DEEPEST = 8;
const WIDEST = 200; // Columns of a table: the browser's time for its layout grows with their square.
const LONGEST = 20_000; // Characters of a paragraph in which marks are looked for: the time grows with the square.

export function element(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  for (const child of children.flat()) node.append(child); // A call cannot have as many arguments as a list has items.
  return node;
}

export function safeUrl(text, protocols = ["http:", "https:", "mailto:"], base = undefined) {
  try {
    const url = new URL(text, base);
    return protocols.includes(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

// Shows a text that grows. Only blocks that have changed are made anew.
export class Markdown {
  constructor(target) {
    this.target = target;
    this.sources = [];
  }

  show(text) {
    const blocks = blocksOf(text.split(/\r\n?|[\n\u2028\u2029]/));
    for (const [place, lines] of blocks.entries()) {
      const source = lines.join("\n");
      if (this.sources[place] === source) continue;
      this.sources[place] = source;
      const node = blockNode(lines, 0);
      const old = this.target.children[place];
      if (old) old.replaceWith(node);
      else this.target.append(node);
    }
    this.sources.length = blocks.length;
    while (this.target.children.length > blocks.length) this.target.lastChild.remove();
  }
}

function blocksOf(lines) {
  const blocks = [];
  for (let at = 0; at < lines.length; ) {
    const begin = at;
    const fence = BLOCK.fence.exec(lines[at]);
    if (!lines[at].trim()) {
      at += 1;
      continue;
    } else if (fence) {
      at += 1;
      while (at < lines.length && !(lines[at].trim().startsWith(fence[1]) && /^[`~\s]*$/.test(lines[at]))) at += 1;
      at += 1;
    } else if (BLOCK.heading.test(lines[at]) || BLOCK.rule.test(lines[at])) {
      at += 1;
    } else {
      const kind = kindOf(lines, at);
      at += kind === "table" ? 2 : 1;
      while (at < lines.length && continues(kind, lines, at)) at += 1;
    }
    blocks.push(lines.slice(begin, at));
  }
  return blocks;
}

function kindOf(lines, at) {
  if (BLOCK.quote.test(lines[at])) return "quote";
  if (BLOCK.item.test(lines[at])) return "list";
  const next = (lines[at + 1] ?? "").trim();
  if (lines[at].includes("|") && BLOCK.table.test(next) && cellsOf(lines[at]).length <= WIDEST) return "table";
  return "paragraph";
}

function continues(kind, lines, at) {
  const line = lines[at];
  if (kind === "quote") return BLOCK.quote.test(line);
  if (kind === "table") return line.includes("|");
  if (kind === "list") {
    if (line.trim()) return BLOCK.item.test(line) || /^\s/.test(line) || Boolean(lines[at - 1].trim());
    return /^\s+\S/.test(lines[at + 1] ?? "") || BLOCK.item.test(lines[at + 1] ?? "");
  }
  const breaks = [BLOCK.fence, BLOCK.heading, BLOCK.rule, BLOCK.quote, BLOCK.item];
  return Boolean(line.trim()) && !breaks.some((each) => each.test(line));
}

function blockNode(lines, depth) {
  const fence = BLOCK.fence.exec(lines[0]);
  if (fence) return codeNode(lines, fence);
  const heading = BLOCK.heading.exec(lines[0]);
  // The page has headings of its own above those of a message.
  if (heading) {
    const text = heading[2].replace(/(^|\s)#+\s*$/, "").trim();
    return element("h" + Math.min(6, heading[1].length + 2), {}, inline(text));
  }
  if (BLOCK.rule.test(lines[0])) return element("hr");
  if (depth < DEEPEST) {
    const kind = kindOf(lines, 0);
    if (kind === "quote") {
      const inner = lines.map((line) => BLOCK.quote.exec(line)?.[1] ?? line);
      return element("blockquote", {}, blocksOf(inner).map((block) => blockNode(block, depth + 1)));
    }
    if (kind === "list") return listNode(lines, depth);
    if (kind === "table") return tableNode(lines);
  }
  return element("p", {}, inline(lines.join("\n")));
}

function codeNode(lines, fence) {
  const closed = lines.length > 1 && lines.at(-1).trim().startsWith(fence[1]) && /^[`~\s]*$/.test(lines.at(-1));
  const text = lines.slice(1, closed ? -1 : undefined).join("\n");
  const copy = element("button", {type: "button", className: "quiet copy", textContent: "Copy"});
  copy.addEventListener("click", () => navigator.clipboard?.writeText(text));
  const pre = element("pre", {tabIndex: 0}, element("code", {textContent: text}));
  return element("div", {className: "code"}, element("span", {className: "dim", textContent: fence[2]}), copy, pre);
}

function listNode(lines, depth) {
  const first = BLOCK.item.exec(lines[0]);
  const ordered = /\d/.test(first[2]);
  const list = element(ordered ? "ol" : "ul");
  if (ordered) list.start = parseInt(first[2], 10);
  let item = [];
  const add = () => {
    if (!item.length) return;
    const blocks = blocksOf(item);
    const node = element("li");
    for (const block of blocks) {
      const made = blockNode(block, depth + 1);
      // A line of text needs no paragraph of its own.
      if (made.tagName === "P" && block === blocks[0]) node.append(...made.childNodes);
      else node.append(made);
    }
    list.append(node);
  };
  for (const line of lines) {
    const found = BLOCK.item.exec(line);
    if (found && found[1].length <= first[1].length + 1) {
      add();
      item = [found[3]];
    } else {
      item.push(line.slice(Math.min(first[1].length + 2, line.length - line.trimStart().length)));
    }
  }
  add();
  return list;
}

function cellsOf(line) {
  return line.trim().replace(/^\||\|$/g, "").split(/(?<!\\)\|/, WIDEST + 1);
}

function tableNode(lines) {
  const width = cellsOf(lines[0]).length;
  const cells = (line) => cellsOf(line).slice(0, width);
  const row = (line, tag) => element("tr", {}, cells(line).map((cell) => element(tag, {}, inline(cell.trim()))));
  const body = element("tbody", {}, lines.slice(2).map((line) => row(line, "td")));
  const table = element("table", {}, element("thead", {}, row(lines[0], "th")), body);
  return element("div", {className: "wide", tabIndex: 0}, table);
}

function inline(text, depth = 0) {
  const nodes = [];
  while (text) {
    const found = depth < DEEPEST && text.length <= LONGEST ? INLINE.exec(text) : null;
    if (!found) {
      nodes.push(text);
      break;
    }
    if (found.index) nodes.push(text.slice(0, found.index));
    nodes.push(inlineNode(found, depth + 1));
    text = text.slice(found.index + found[0].length);
  }
  return nodes;
}

function inlineNode(found, depth) {
  const [whole, ticks, code, , strong, , emphasis, deleted, label, target, url, escaped] = found;
  if (ticks) return element("code", {textContent: code.trim()});
  if (strong) return element("strong", {}, inline(strong, depth));
  if (emphasis) return element("em", {}, inline(emphasis, depth));
  if (deleted) return element("del", {}, inline(deleted, depth));
  if (escaped) return document.createTextNode(escaped);
  const href = safeUrl(url ?? target);
  if (!href) return document.createTextNode(whole);
  const link = element("a", {href, target: "_blank", rel: "noopener noreferrer"});
  link.append(...(url || !label ? [url ?? target] : inline(label, depth)));
  return link;
}
