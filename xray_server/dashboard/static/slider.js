// A range whose value is asked about while it moves: a form with data-slider="id of the part to renew".
export function prepareSliders(root) {
  for (const form of root.querySelectorAll("form[data-slider]")) slide(form);
}

function slide(form) {
  const range = form.querySelector("input[type=range]");
  const box = form.querySelector("input[type=number]");
  let timer;
  let asked = 0;
  const ask = async () => {
    const mine = ++asked;
    const address = new URL(form.action);
    address.search = new URLSearchParams(new FormData(form));
    const response = await fetch(address, { headers: { Accept: "text/html" } }).catch(() => null);
    if (!response || mine !== asked) return;
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const place = document.getElementById(form.dataset.slider);
    const part = page.getElementById(form.dataset.slider) ?? page.querySelector("main");
    if (!place || !part) return;
    place.replaceChildren(...part.childNodes);
    place.dispatchEvent(new CustomEvent("xray:content", { bubbles: true }));
  };
  const later = () => {
    clearTimeout(timer);
    timer = setTimeout(ask, 120);
  };
  range?.addEventListener("input", () => {
    if (box) box.value = range.value;
    later();
  });
  box?.addEventListener("input", () => {
    if (range) range.value = box.value;
    later();
  });
  form.addEventListener("change", later);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });
}
