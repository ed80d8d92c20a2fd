// Draws the figures of a page with Plotly: when they come into view, in the colours of the theme, and again when it
// changes. A figure is an element with data-chart, its JSON in a script element and a place with data-plot.
let plotly;
const drawn = new Set();

/** Plotly, loaded once, when the first chart needs it. */
function loadPlotly() {
  plotly ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = document.getElementById("app").dataset.plotly;
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => reject(new Error("Plotly could not be loaded"));
    document.head.append(script);
  });
  return plotly;
}

/** What the tokens of the style sheet stand for in the theme of this moment. */
function tokens() {
  const probe = document.createElement("span");
  probe.hidden = true;
  document.body.append(probe);
  const known = new Map();
  const styles = getComputedStyle(probe);
  return {
    family: styles.fontFamily,
    of(name) {
      if (!known.has(name)) {
        probe.style.color = `var(${name})`;
        known.set(name, styles.color);
      }
      return known.get(name);
    },
    /** The same, seen through. */
    faint(name) {
      const [red, green, blue] = this.of(name).match(/[\d.]+/g);
      return `rgba(${red}, ${green}, ${blue}, 0.45)`;
    },
    done: () => probe.remove(),
  };
}

/** The value with each text var(--name), or faint(--name), replaced by the colour that the name stands for. */
function resolved(value, colours) {
  if (typeof value === "string") {
    const found = /^(var|faint)\((--[\w-]+)\)$/.exec(value);
    return found ? colours[found[1] === "var" ? "of" : "faint"](found[2]) : value;
  }
  if (Array.isArray(value)) return value.map((each) => resolved(each, colours));
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, resolved(each, colours)]));
  }
  return value;
}

/** What all charts share; a figure's own layout goes over it. */
function commonLayout({ family, of }, height) {
  const axis = {
    gridcolor: of("--line"), zerolinecolor: of("--line-strong"), linecolor: of("--line-strong"), automargin: true,
  };
  return {
    height,
    font: { family, size: 12, color: of("--text") },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 48, r: 16, t: 8, b: 40 },
    xaxis: axis,
    yaxis: { ...axis },
    legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom" },
    hoverlabel: {
      bgcolor: of("--raised"), bordercolor: of("--line-strong"), font: { color: of("--text") }, namelength: 60,
    },
    colorway: ["--accent", ...Array.from({ length: 11 }, (_, i) => `--label-${i}`)].map(of),
  };
}

function merged(base, over) {
  const result = { ...base };
  for (const [key, value] of Object.entries(over)) {
    const both = value && typeof value === "object" && !Array.isArray(value) && base[key] && typeof base[key] === "object";
    result[key] = both ? merged(base[key], value) : value;
  }
  for (const key of Object.keys(over)) {
    // A second axis looks like the first.
    if (/^[xy]axis\d+$/.test(key)) result[key] = merged(base[`${key[0]}axis`], over[key]);
  }
  return result;
}

async function draw(figure) {
  const place = figure.querySelector("[data-plot]");
  const { data, layout } = JSON.parse(figure.querySelector('script[type="application/json"]').textContent);
  let library;
  try {
    library = await loadPlotly();
  } catch {
    figure.querySelector("details.figures")?.setAttribute("open", "");
    return;
  }
  if (place.dataset.minWidth) place.style.minWidth = `${place.dataset.minWidth}px`;
  const colours = tokens();
  const height = Number(figure.dataset.height) || 280;
  const full = merged(commonLayout(colours, height), resolved(layout, colours));
  const traces = resolved(data, colours);
  colours.done();
  const options = { displayModeBar: false, responsive: true, displaylogo: false, showTips: false };
  await library.react(place, traces, full, options);
  if (!drawn.has(figure)) {
    drawn.add(figure);
    place.on("plotly_click", (event) => open(event.points[0]?.customdata));
    figure.dataset.drawn = "";
    figure.dispatchEvent(new CustomEvent("xray:drawn", { bubbles: true }));
  }
}

/** Follow a point's address, if it is one on this server. */
function open(address) {
  const text = Array.isArray(address) ? address[0] : address;
  if (typeof text === "string" && /^\/(?!\/)/.test(text)) location.assign(text);
}

export function prepareCharts(root) {
  const watcher = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        watcher.unobserve(entry.target);
        draw(entry.target);
      }
    },
    { rootMargin: "200px" },
  );
  for (const figure of root.querySelectorAll("[data-chart]")) watcher.observe(figure);
}

document.addEventListener("xray:theme", () => {
  for (const figure of drawn) {
    if (figure.isConnected) draw(figure);
    else drawn.delete(figure);
  }
});
