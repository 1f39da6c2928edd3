// What the console does beside its pages: live updates, the drop zone, the keyboard. Everything here is an addition: the
// pages are whole without it. Nothing that comes from the node is ever made into markup; it goes in as text.
"use strict";

(() => {
  const body = document.body;
  const all = (selector, of = document) => [...of.querySelectorAll(selector)];
  const one = (selector, of = document) => of.querySelector(selector);
  const make = (name, attributes = {}, ...inside) => {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...inside);
    return element;
  };

  // ---- signing in: the token leaves the address before anything else happens
  const token = /^#t=([\w-]{1,200})$/.exec(location.hash);
  if (token) {
    history.replaceState(null, "", location.pathname + location.search);
    const login = one("#login");
    if (login) {
      login.elements.token.value = token[1];
      login.requestSubmit();
    }
  }

  // ---- what is announced
  const live = one("#live");
  const say = (text, href) => {
    if (!live) return;
    const line = make("p");
    line.append(text);
    if (href) line.append(" ", make("a", { href }, "Show"));
    live.replaceChildren(line);
    setTimeout(() => line.remove(), 12000);
  };

  // ---- live updates
  const thin = (n) => String(n).replace(/\B(?=(\d{3})+$)/g, "\u202f");
  const tags = (labels) =>
    labels.length ? make("ul", { class: "tags" }, ...labels.map((label) => make("li", {}, label))) : make("span", { class: "muted" }, "none");
  const cell = (label, ...inside) => make("td", { "data-label": label }, ...inside);
  const row = (entry) => {
    const at = new Date(entry.seen_ms || Date.now());
    const link = make("a", { class: "hash", href: entry.href }, make("span", { class: "type" }, entry.type), " ", make("code", {}, entry.short));
    const status = make("span", { class: `badge status-${entry.status.toLowerCase().replace(/[^a-z-]/g, "")}` }, entry.status);
    const time = make("time", { datetime: at.toISOString(), title: at.toISOString() }, relative(at.getTime(), Date.now()));
    return make("tr", { class: "fresh", "data-href": entry.href }, cell("Entry", link), cell("Status", status),
      cell("Labels", tags(entry.labels)), cell("By", entry.by || "nobody"), cell("First seen", time));
  };
  const took = {
    state: ({ tone, sentence }) => {
      const state = one("#state");
      if (state) {
        state.className = `state tone-${tone}`;
        one("a", state).textContent = sentence;
      }
      all("[data-state]").forEach((place) => { place.textContent = sentence; });
    },
    reviews: ({ count, text, disputed_own }) => {
      all("[data-count=reviews]").forEach((badge) => {
        badge.textContent = text;
        badge.hidden = count === 0;
      });
      const before = took.disputed ?? Number(body.dataset.disputed);
      took.disputed = disputed_own;
      if (disputed_own > before) say("Another member disputes an entry of ours.", "/review?kind=disputed-own");
    },
    entries: ({ count, entries }) => {
      const fresh = entries.filter((entry) => entry.new);
      all("[data-live-rows]").forEach((table) => {
        const rows = table.tBodies[0];
        const most = Number(table.dataset.liveRows);
        [...entries].reverse().forEach((entry) => {
          const known = all("tr", rows).find((tr) => tr.dataset.href === entry.href || one("a", tr)?.getAttribute("href") === entry.href);
          if (known) known.replaceWith(row(entry));
          else if (entry.new) rows.prepend(row(entry));
        });
        while (rows.rows.length > most) rows.lastElementChild.remove();
        table.hidden = rows.rows.length === 0;
        all("[data-live-empty]").forEach((empty) => { empty.hidden = !table.hidden; });
      });
      all("[data-live-news]").forEach((news) => {
        took.news = (took.news || 0) + count;
        news.hidden = false;
        one("[data-live-count]", news).textContent = took.news === 1 ? "One entry has changed." : `${thin(took.news)} entries have changed.`;
      });
      all("[data-live-entry]").forEach((notice) => {
        if (entries.some((entry) => entry.href === notice.dataset.liveEntry)) notice.hidden = false;
      });
      if (fresh.length > 0 && one("[data-live-rows]")) say(fresh.length === 1 ? `New entry: ${fresh[0].type} ${fresh[0].short}` : `${thin(count)} entries are new or have changed.`);
    },
    missed: () => say("This page has missed some news.", location.pathname + location.search),
  };
  let source = null;
  const listen = () => {
    if (source || document.hidden || !body.dataset.live) return;
    source = new EventSource(body.dataset.live);
    for (const name of ["state", "reviews", "entries", "missed"]) {
      source.addEventListener(name, (event) => took[name](JSON.parse(event.data)));
    }
    // A browser gives up on an answer that is none, as after signing out; it tries again by itself when a connection breaks.
    source.addEventListener("error", () => {
      if (source && source.readyState === EventSource.CLOSED) { source = null; setTimeout(listen, 30000); }
    });
  };
  const rest = () => { source?.close(); source = null; };
  // A page in the background holds no connection: browsers have six for all of them.
  document.addEventListener("visibilitychange", () => (document.hidden ? rest() : listen()));
  addEventListener("pagehide", rest);
  listen();

  // ---- relative times go on
  const units = [[31536e6, "year"], [2592e6, "month"], [864e5, "day"], [36e5, "hour"], [6e4, "minute"], [1e3, "second"]];
  function relative(at, now) {
    const distance = Math.abs(at - now);
    const unit = units.find(([ms]) => distance >= ms);
    if (!unit) return "now";
    const n = Math.floor(distance / unit[0]);
    const words = `${n} ${unit[1]}${n === 1 ? "" : "s"}`;
    return at > now ? `in ${words}` : `${words} ago`;
  }
  setInterval(() => {
    all("time[datetime]").forEach((time) => {
      if (/ ago$|^in |^now$/.test(time.textContent)) time.textContent = relative(Date.parse(time.dateTime), Date.now());
    });
  }, 20000);

  // ---- the drop zone: the form is an ordinary one; a file that is dropped is put into it
  all("form[data-drop]").forEach((form) => {
    const zone = one(".drop", form);
    const input = one("input[type=file]", form);
    const state = one("[data-drop-state]", form);
    const over = (event) => { event.preventDefault(); zone.classList.add("over"); };
    zone.addEventListener("dragenter", over);
    zone.addEventListener("dragover", over);
    zone.addEventListener("dragleave", () => zone.classList.remove("over"));
    zone.addEventListener("drop", (event) => {
      event.preventDefault();
      zone.classList.remove("over");
      if (event.dataTransfer.files.length === 0) return;
      input.files = event.dataTransfer.files;
      form.requestSubmit();
    });
    input.addEventListener("change", () => {
      const bytes = [...input.files].reduce((sum, file) => sum + file.size, 0);
      if (state && input.files.length > 0) state.textContent = `${input.files.length === 1 ? "One file" : `${input.files.length} files`}, ${thin(Math.ceil(bytes / 1024))} KiB.`;
    });
    form.addEventListener("submit", () => {
      zone.classList.add("busy");
      if (state) state.textContent = "Hashing in the node …";
    });
  });
  // A file that misses the zone must not be opened in place of the page: that would show it.
  for (const name of ["dragover", "drop"]) {
    addEventListener(name, (event) => {
      if (event.dataTransfer?.types.includes("Files")) event.preventDefault();
    });
  }

  // ---- a form is sent once
  document.addEventListener("submit", (event) => {
    if (event.target.method !== "post") return;
    if (event.target.dataset.sent) { event.preventDefault(); return; }
    event.target.dataset.sent = "yes";
  });
  addEventListener("pageshow", () => all("form[data-sent]").forEach((form) => delete form.dataset.sent));

  // ---- copying
  const copy = (button) => {
    const text = one(`#${button.dataset.copy}`)?.textContent.trim();
    if (text) navigator.clipboard?.writeText(text).then(() => say("Copied."), () => say("This browser does not let pages copy."));
  };
  all("[data-copy]").forEach((button) => {
    button.hidden = false;
    button.addEventListener("click", () => copy(button));
  });

  // ---- the keyboard
  const help = one("#help");
  all("[data-help]").forEach((button) => {
    button.hidden = false;
    button.addEventListener("click", () => help.showModal());
  });
  let behind = 0; // when `g` was pressed
  const rows = () => all("[data-rows] tbody tr");
  const choose = (step) => {
    const list = rows();
    if (list.length === 0) return;
    const at = list.findIndex((tr) => tr.getAttribute("aria-selected") === "true");
    const next = list[Math.min(Math.max(at + step, 0), list.length - 1)];
    list.forEach((tr) => tr.removeAttribute("aria-selected"));
    next.setAttribute("aria-selected", "true");
    one("a", next)?.focus();
    next.scrollIntoView({ block: "nearest" });
  };
  // The queue: one item is chosen, and the key on one of its buttons opens the form of that decision in place.
  const items = all("[data-item]");
  let chosen = Math.max(items.findIndex((item) => one("form", item) || `#${item.id}` === location.hash), 0);
  const mark = () => items.forEach((item, at) => item.classList.toggle("chosen", at === chosen));
  const move = (step) => {
    chosen = Math.min(Math.max(chosen + step, 0), items.length - 1);
    mark();
    items[chosen].focus();
    items[chosen].scrollIntoView({ block: "nearest" });
  };
  const decide = (event) => {
    const item = items[chosen];
    const button = one(`[data-key="${CSS.escape(event.key)}"]`, item);
    if (button) return () => button.click();
    const cancel = one("[data-cancel]", item);
    const onItem = !event.target.closest("a, button, summary");
    return {
      j: () => move(1),
      k: () => move(-1),
      Enter: onItem ? () => one("a.hash", item)?.click() : undefined,
      Escape: cancel ? () => cancel.click() : undefined,
    }[event.key];
  };
  mark();
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const field = event.target.closest("input, select, textarea, [contenteditable]");
    if (field) {
      if (event.key === "Escape") field.blur();
      return;
    }
    if (help?.open) return;
    if (Date.now() - behind < 1500) {
      behind = 0;
      const place = one(`.nav a[data-go="${CSS.escape(event.key)}"]`);
      if (place) { event.preventDefault(); location.assign(place.href); return; }
    }
    const does = {
      "/": () => one("[data-focus='/']")?.focus(),
      "?": () => help?.showModal(),
      g: () => { behind = Date.now(); },
      j: () => choose(1),
      k: () => choose(-1),
      c: () => { const button = one("[data-copy]"); if (button) copy(button); },
    }[event.key];
    const decides = items.length > 0 && !"/?g".includes(event.key);
    const act = decides ? decide(event) : does;
    if (!act) return;
    event.preventDefault();
    act();
  });
})();
