// Runs before the page is painted, so that a remembered theme does not flash.
(() => {
  try {
    const theme = localStorage.getItem("xray-theme");
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  } catch {
    // Without storage the system's theme holds.
  }
})();
