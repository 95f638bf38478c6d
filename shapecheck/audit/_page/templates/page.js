"use strict";
(() => {
  const cards = [...document.querySelectorAll(".card")];
  const form = document.querySelector("form.filter");
  const words = new Map(cards.map((card) => [card, card.textContent.toLowerCase()]));
  const folds = () => document.querySelectorAll(".card > details");

  function filter() {
    const wanted = form.elements.text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const kind = form.elements.kind.value;
    let shown = 0;
    for (const card of cards) {
      const fits = wanted.every((word) => words.get(card).includes(word))
        && (!kind || card.dataset.kinds.split(",").includes(kind));
      card.hidden = !fits;
      shown += fits;
    }
    form.elements.count.value = `${shown} of ${cards.length} shown`;
  }

  function reveal() {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target || !target.matches(".card, section details")) return;
    if (target.hidden) { form.reset(); filter(); }
    (target.querySelector("details") || target).open = true;
    target.scrollIntoView();
  }

  if (form) {
    form.hidden = false;
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", filter);
    form.elements.fold.addEventListener("click", () => {
      const open = form.elements.fold.dataset.open === "true";
      for (const fold of folds()) fold.open = open;
      form.elements.fold.dataset.open = String(!open);
      form.elements.fold.textContent = open ? "Fold all" : "Open all";
    });
    document.addEventListener("keydown", (event) => {
      if (event.key !== "/" || event.ctrlKey || event.metaKey || /INPUT|SELECT|TEXTAREA/.test(document.activeElement.tagName)) return;
      event.preventDefault();
      form.elements.text.focus();
    });
    if (cards.length > 12) for (const card of cards.slice(3)) card.querySelector("details").open = false;
    filter();
  }
  for (const one of document.querySelectorAll("section > details")) one.open = false;
  addEventListener("hashchange", reveal);
  reveal();

  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    for (const fold of folded) fold.open = true;
  });
  addEventListener("afterprint", () => { for (const fold of folded) fold.open = false; });

  for (const flow of document.querySelectorAll(".flow")) {
    const nodes = [...flow.querySelectorAll(".node")];
    const edges = [...flow.querySelectorAll(".edge")];
    const light = (event) => {
      const node = event.target.closest(".node");
      if (!node) return;
      const near = new Set([node.dataset.number]);
      for (const edge of edges) {
        const ends = [edge.dataset.source, edge.dataset.target];
        const touches = ends.includes(node.dataset.number);
        edge.classList.toggle("near", touches);
        if (touches) ends.forEach((end) => near.add(end));
      }
      for (const other of nodes) other.classList.toggle("near", near.has(other.dataset.number));
      flow.classList.add("lit");
    };
    const dim = () => flow.classList.remove("lit");
    flow.addEventListener("mouseover", light);
    flow.addEventListener("focusin", light);
    flow.addEventListener("mouseleave", dim);
    flow.addEventListener("focusout", dim);
  }
})();
