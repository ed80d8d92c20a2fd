// Buttons that copy a text, or the text of an element.
export function prepareCopying(root) {
  for (const button of root.querySelectorAll("[data-copy], [data-copy-from]")) {
    button.hidden = false;
    const words = button.textContent;
    button.addEventListener("click", async () => {
      const from = button.dataset.copyFrom;
      const text = from ? document.getElementById(from)?.textContent ?? "" : button.dataset.copy;
      try {
        await navigator.clipboard.writeText(text);
        button.textContent = "Copied";
      } catch {
        button.textContent = "Cannot copy here";
      }
      setTimeout(() => (button.textContent = words), 1500);
    });
  }
}
