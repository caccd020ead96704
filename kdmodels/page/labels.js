// Names for screen readers where gradio leaves parts of its image components without one.
() => {
  const nameOf = (part) =>
    part.closest(".block")?.querySelector("[data-testid='block-label']")?.textContent.trim();
  const label = () => {
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
