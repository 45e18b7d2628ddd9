// Shared by all modules: find and make elements, format numbers.

export const at = (id) => document.getElementById(id);

export function element(tag, className = "", ...content) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...content);
  return made;
}

export function percent(share) {
  if (share > 0.99 && share < 1) return ">99%";
  if (share < 0.01 && share > 0) return "<1%";
  return `${Math.round(100 * share)}%`;
}

/** Minutes and seconds, with tenths where there are some: 0:03, 1:01.5. */
export function clock(seconds) {
  const tenths = Math.round(10 * seconds);
  const rest = (tenths % 600) / 10;
  return `${Math.floor(tenths / 600)}:${rest < 10 ? "0" : ""}${rest}`;
}

/** The CSS colour of an emotion; unknown ones share one. */
export const colourOf = (emotion) => `var(--${CSS.escape(emotion)}, var(--other))`;

export const still = matchMedia("(prefers-reduced-motion: reduce)");
