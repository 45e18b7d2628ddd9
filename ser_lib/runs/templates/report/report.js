const toggle = document.querySelector("#toggle");
const contents = document.querySelector("#contents");
const code = [...document.querySelectorAll("details.code")];
const wide = matchMedia("(min-width: 68rem)");

const label = () => {
  toggle.textContent = code.every((part) => part.open) ? "Hide all code" : "Show all code";
};
toggle.hidden = !code.length;
toggle.addEventListener("click", () => {
  const open = !code.every((part) => part.open);
  code.forEach((part) => { part.open = open; });
  label();
});
code.forEach((part) => part.addEventListener("toggle", label));

const fold = () => { contents.open = wide.matches; };
wide.addEventListener("change", fold);
fold();

// A figure that was shrunk to fit is shown in its own size, in a box that scrolls.
document.querySelectorAll("figure button").forEach((button) => {
  button.setAttribute("aria-pressed", "false");
  button.addEventListener("click", () => {
    button.setAttribute("aria-pressed", String(button.parentElement.classList.toggle("full")));
  });
});

// A table of sentences begins at the left and wraps; numbers end below the end of their heading.
document.querySelectorAll("table").forEach((table) => {
  const long = [...table.querySelectorAll("td")].some((cell) => cell.textContent.trim().length > 32);
  table.classList.toggle("words", long);
});
