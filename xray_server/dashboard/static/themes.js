// The switch between light, dark and the system's theme; what was chosen is remembered by this browser.
const NAMES = { "": "Theme: system", light: "Theme: light", dark: "Theme: dark" };
const ORDER = ["", "light", "dark"];

export function prepareThemes() {
  const root = document.documentElement;
  const button = document.querySelector("[data-theme-switch]");
  const say = () => document.dispatchEvent(new CustomEvent("xray:theme"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", say);
  if (!button) return;
  const show = () => (button.textContent = NAMES[root.dataset.theme ?? ""]);
  button.hidden = false;
  show();
  button.addEventListener("click", () => {
    const next = ORDER[(ORDER.indexOf(root.dataset.theme ?? "") + 1) % ORDER.length];
    if (next) root.dataset.theme = next;
    else delete root.dataset.theme;
    try {
      if (next) localStorage.setItem("xray-theme", next);
      else localStorage.removeItem("xray-theme");
    } catch {
      // It holds for this page then.
    }
    show();
    say();
  });
}
