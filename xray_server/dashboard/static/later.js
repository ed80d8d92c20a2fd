// Parts of a page that take longer: asked for when they come into view, put in as the server rendered them.
export function prepareLater(root) {
  const watcher = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        watcher.unobserve(entry.target);
        load(entry.target);
      }
    },
    { rootMargin: "300px" },
  );
  for (const place of root.querySelectorAll("[data-later]")) watcher.observe(place);
}

async function load(place) {
  const address = place.dataset.later;
  place.dataset.loading = "";
  try {
    const response = await fetch(address, { headers: { Accept: "text/html", "X-Requested-With": "part" } });
    const html = await response.text();
    const page = new DOMParser().parseFromString(html, "text/html");
    const part = page.querySelector("main") ?? page.body;
    place.replaceChildren(...part.childNodes);
    place.dispatchEvent(new CustomEvent("xray:content", { bubbles: true }));
  } catch {
    place.querySelector("a")?.replaceChildren("This part could not be loaded; open it by itself");
  } finally {
    delete place.dataset.loading;
    place.removeAttribute("aria-busy");
  }
}
