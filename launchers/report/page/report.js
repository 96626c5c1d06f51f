"use strict";
(() => {
  const form = document.getElementById("filters");
  if (!form) return;
  const samples = [...document.querySelectorAll(".sample")];
  const count = form.querySelector("output");
  const fits = (sample, wanted) =>
    (!wanted.kind || sample.dataset.kind.split(" ").includes(wanted.kind)) &&
    (!wanted.step || sample.dataset.step === wanted.step) &&
    (!wanted.run || sample.dataset.run === wanted.run) &&
    (!wanted.text || sample.textContent.toLowerCase().includes(wanted.text.toLowerCase()));
  const apply = () => {
    const wanted = Object.fromEntries(new FormData(form));
    let shown = 0;
    for (const sample of samples) {
      sample.hidden = !fits(sample, wanted);
      shown += sample.hidden ? 0 : 1;
    }
    count.textContent = `${shown} of ${samples.length}`;
  };
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  apply();
  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details:not(.sample)")) details.open = true;
  });
})();
