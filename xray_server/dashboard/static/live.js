// A list that follows what comes in: asks again for the same page every few seconds, while somebody looks at it, and
// puts its new rows in. An element with data-live="id of the element to renew"; data-every is in milliseconds.
export function prepareLive(root) {
  for (const control of root.querySelectorAll("[data-live]")) follow(control);
}

function follow(control) {
  const every = Number(control.dataset.every) || 2000;
  const id = control.dataset.live;
  let on = control.dataset.on !== undefined;
  let timer;
  const show = () => {
    if (control.tagName !== "BUTTON") return;
    control.hidden = false;
    control.setAttribute("aria-pressed", String(on));
    control.textContent = on ? "Live: on" : "Live: off";
  };
  const ask = async () => {
    clearTimeout(timer);
    if (!on || !control.isConnected) return;
    if (!document.hidden) await renew(id, control.dataset.from ?? location.href);
    timer = setTimeout(ask, every);
  };
  control.addEventListener("click", () => {
    on = !on;
    show();
    ask();
  });
  show();
  timer = setTimeout(ask, every);
}

/** The HTML that was put in last, by the element's id: what the server says, without what was marked here. */
const shown = new Map();

async function renew(id, address) {
  let page;
  try {
    const response = await fetch(address, { headers: { Accept: "text/html" } });
    if (!response.ok) return;
    page = new DOMParser().parseFromString(await response.text(), "text/html");
  } catch {
    return; // The service is away for a moment; the next time it may be back.
  }
  const old = document.getElementById(id);
  const fresh = page.getElementById(id);
  if (!old || !fresh) {
    // The page is another one now: the first run has arrived.
    if (fresh === null && old) location.reload();
    return;
  }
  const html = fresh.innerHTML;
  if (html === (shown.get(id) ?? old.innerHTML)) return;
  shown.set(id, html);
  const known = new Set([...old.querySelectorAll("[data-row]")].map((row) => row.dataset.row));
  for (const row of fresh.querySelectorAll("[data-row]")) {
    if (!known.has(row.dataset.row)) row.classList.add("new");
  }
  const picked = new Set([...old.querySelectorAll("input:checked")].map(named));
  for (const box of fresh.querySelectorAll("input[type=checkbox], input[type=radio]")) {
    box.checked = picked.has(named(box));
  }
  const focused = old.contains(document.activeElement) ? named(document.activeElement) : null;
  const scrolled = [...old.querySelectorAll(".scroll")].map((box) => [box.scrollLeft, box.scrollTop]);
  old.replaceWith(document.adoptNode(fresh));
  fresh.querySelectorAll(".scroll").forEach((box, place) => box.scrollTo(...(scrolled[place] ?? [0, 0])));
  if (focused) [...fresh.querySelectorAll("a, button, input")].find((each) => named(each) === focused)?.focus();
  fresh.dispatchEvent(new CustomEvent("xray:content", { bubbles: true }));
}

/** What tells a control from the others, so that it can be found in the renewed list. */
function named(control) {
  return [control.tagName, control.name, control.value, control.getAttribute("href")].join(" ");
}
