"use strict";
const cards = Array.from(document.querySelectorAll("article"));
const chosen = {verdict: "", group: "", task: ""};
const buttons = Array.from(document.querySelectorAll("button[data-verdict]"));
const count = document.getElementById("count");

function show() {
  let number = 0;
  for (const card of cards) {
    const fits = Object.entries(chosen).every(([key, value]) => !value || card.dataset[key] === value);
    card.hidden = !fits;
    number += fits;
  }
  count.textContent = `${number} of ${cards.length} shown`;
  for (const button of buttons) {
    button.setAttribute("aria-pressed", String(button.dataset.verdict === chosen.verdict));
  }
}

for (const button of buttons) {
  button.addEventListener("click", () => {
    chosen.verdict = chosen.verdict === button.dataset.verdict ? "" : button.dataset.verdict;
    show();
  });
}
for (const select of document.querySelectorAll("select")) {
  select.addEventListener("change", () => {
    chosen[select.name] = select.value;
    show();
  });
}
show();
