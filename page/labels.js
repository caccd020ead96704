// For screen readers: names where gradio leaves parts of its image components without one, and which
// parts of the page are read out when they change.
() => {
  const SPOKEN = ["message", "verdict", "changes", "teach-message", "teach-question", "batch-state"];
  const nameOf = (part) =>
    part.closest(".block")?.querySelector("[data-testid='block-label']")?.textContent.trim();
  const label = () => {
    for (const part of SPOKEN.map((id) => document.getElementById(id))) {
      if (part && !part.hasAttribute("aria-live")) part.setAttribute("aria-live", "polite");
    }
    for (const part of document.querySelectorAll(".empty[aria-label]:not([role])")) {
      part.setAttribute("role", "img");
    }
    for (const frame of document.querySelectorAll("button > .image-frame")) {
      const name = nameOf(frame) || "Image"; // names the class whose evidence is shown
      const button = frame.parentElement;
      if (button.getAttribute("aria-label") !== name) button.setAttribute("aria-label", name);
    }
  };
  label();
  new MutationObserver(label).observe(document.body, { childList: true, subtree: true });
}
