// Two rows to compare: a form with data-pick-two whose button works when two boxes are checked; a third one takes the
// place of the first.
export function prepareSelection(root) {
  const forms = root.matches?.("[data-pick-two]") ? [root] : root.querySelectorAll("[data-pick-two]");
  for (const form of forms) pickTwo(form);
}

function pickTwo(form) {
  const button = form.querySelector("[data-pick-button]");
  const picked = [...form.querySelectorAll("input[data-pick]:checked")];
  const show = () => {
    if (!button) return;
    button.disabled = picked.length !== 2;
    button.textContent = picked.length === 2 ? "Compare the two" : `Compare (pick ${2 - picked.length} more)`;
  };
  form.addEventListener("change", (event) => {
    const box = event.target;
    if (!box.matches?.("input[data-pick]")) return;
    if (box.checked) picked.push(box);
    else picked.splice(picked.indexOf(box), 1);
    if (picked.length > 2) picked.shift().checked = false;
    show();
  });
  form.addEventListener("submit", (event) => {
    if (picked.length !== 2) return;
    event.preventDefault();
    const address = new URL(form.action);
    address.search = new URLSearchParams({ a: picked[0].value, b: picked[1].value });
    location.assign(address);
  });
  show();
}
