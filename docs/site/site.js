// What every page does: light or dark, the menu, the search, the formulas.
"use strict";

const site = { index: null }; // index: [[place, title, text], ...], from search-en.js or search-zh.js

// Before the page is drawn: the reader's theme, or the system's.
{
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const show = (theme) => (document.documentElement.dataset.theme = theme);
  let store = null; // of a browser that keeps nothing
  try {
    store = localStorage;
  } catch {}
  const kept = () => store?.getItem("theme");
  show(kept() || (dark.matches ? "dark" : "light"));
  dark.addEventListener("change", () => kept() || show(dark.matches ? "dark" : "light"));
  site.toggle = () => {
    const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    show(theme);
    store?.setItem("theme", theme);
  };
}

site.render = () => {
  for (const each of document.querySelectorAll(".tex")) {
    const options = {
      displayMode: true,
      throwOnError: false,
      trust: ({ command }) => command === "\\htmlClass",
      strict: (code) => (code === "htmlExtension" ? "ignore" : "warn"),
      macros: { "\\fix": "\\htmlClass{fix}{#1}" }, // what the errata correct
    };
    const tex = each.textContent;
    katex.render(tex, each, options);
  }
  fit();
  addEventListener("resize", fit);
  document.fonts.ready.then(fit);
};

// A formula that is a little too long is made smaller; one that is much too long scrolls.
function fit() {
  for (const each of document.querySelectorAll(".formula")) {
    each.style.fontSize = "";
    const part = each.clientWidth / each.scrollWidth;
    if (part < 1) each.style.fontSize = `${Math.max(part * 0.98, 0.68)}em`;
  }
}

// ---- Search: every word is to occur, the title counts more.

site.search = (query) => {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return [];
  const found = [];
  for (const [place, title, text] of site.index) {
    const inTitle = title.toLowerCase(), inText = text.toLowerCase();
    if (words.every((word) => inTitle.includes(word) || inText.includes(word))) {
      const at = Math.max(0, inText.indexOf(words[0]) - 40);
      found.push([words.filter((word) => inTitle.includes(word)).length, place, title, text.slice(at, at + 120)]);
    }
  }
  return found.sort((a, b) => b[0] - a[0]).slice(0, 12);
};

function searching(form) {
  const input = form.querySelector("input"), list = form.querySelector("ol");
  const { root, index, nothing } = document.body.dataset;
  const prefix = index === "search-zh.js" ? `${root}zh/` : root;

  function load() {
    if (site.index) return Promise.resolve();
    return new Promise((resolve) => {
      const script = document.createElement("script");
      script.src = root + index;
      script.onload = resolve;
      document.head.append(script);
    });
  }

  async function show() {
    await load();
    list.replaceChildren();
    for (const [, place, title, text] of site.search(input.value)) {
      const item = document.createElement("li"), link = document.createElement("a"), more = document.createElement("small");
      link.href = prefix + place.replace(/#$/, "");
      link.textContent = title;
      const page = place.replace(/\/?(index)?\.html.*/, "");
      more.textContent = page ? `${page} · ${text}` : text;
      link.append(more);
      item.append(link);
      list.append(item);
    }
    if (!list.children.length && input.value.trim()) list.append(nothing);
    list.hidden = !input.value.trim();
  }

  input.addEventListener("focus", load);
  input.addEventListener("input", show);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    list.querySelector("a")?.click();
  });
  form.addEventListener("keydown", (event) => {
    const places = [input, ...list.querySelectorAll("a")], here = places.indexOf(document.activeElement);
    if (event.key === "Escape") list.hidden = true;
    const next = { ArrowDown: here + 1, ArrowUp: here - 1 }[event.key];
    if (next !== undefined && places[next]) {
      places[next].focus();
      event.preventDefault();
    }
  });
  addEventListener("click", (event) => form.contains(event.target) || (list.hidden = true));
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return; // the browser's
    if (event.key === "/" && !event.target.closest("input, select, textarea")) {
      input.focus();
      event.preventDefault();
    }
  });
}

addEventListener("DOMContentLoaded", () => {
  document.querySelector(".theme").addEventListener("click", site.toggle);
  searching(document.querySelector(".search"));
  const narrow = matchMedia("(max-width: 60rem)"), menu = document.querySelector(".menu");
  const fold = () => (menu.open = !narrow.matches);
  narrow.addEventListener("change", fold);
  fold();
  if (document.querySelector(".tex")) site.render();
});
