// What every page loads; each module looks for its own elements and does nothing where there are none.
import { prepareCharts } from "./charts.js";
import { prepareCopying } from "./copying.js";
import { prepareLater } from "./later.js";
import { prepareLive } from "./live.js";
import { prepareSliders } from "./slider.js";
import { prepareThemes } from "./themes.js";

/** Make the controls inside an element work; called again for parts that are put into the page later. */
export function prepare(root) {
  for (const part of [prepareCharts, prepareCopying, prepareLater, prepareLive, prepareSliders]) part(root);
}

document.addEventListener("xray:content", (event) => prepare(event.target));
prepareThemes();
prepare(document);
document.documentElement.dataset.ready = "";
