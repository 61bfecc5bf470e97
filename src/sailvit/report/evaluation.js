"use strict";
(() => {
  const data = JSON.parse(document.getElementById("payload").textContent);
  const PAGE = 40;
  const shown = { set: "", verdict: "", words: [], start: 0, found: [] };
  const at = (id) => document.getElementById(id);

  const make = (tag, text, style) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (style) element.className = style;
    return element;
  };

  const cell = (value) => {
    const text = value === null || value === undefined ? "" : String(value);
    // A spreadsheet would run a text that begins like a formula.
    const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? "'" + text : text;
    return /[",\n\r]/.test(safe) ? '"' + safe.replaceAll('"', '""') + '"' : safe;
  };

  const save = (name, rows) => {
    const text = rows.map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
    const link = make("a");
    // The mark tells spreadsheets that it is UTF-8.
    link.href = URL.createObjectURL(new Blob(["\ufeff", text], { type: "text/csv" }));
    link.download = name + ".csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };

  const questions = data.questions.map((row) => {
    const [set, index, category, text, options, answer, pictures, predictions, credits, understood] = row;
    const all = [index, category, text, ...Object.values(options), answer, ...predictions.map((p) => p ?? "")];
    return { set, index, category, text, options, answer, pictures, predictions, credits, understood, all: all.join("\n").toLowerCase() };
  });

  const known = (question) => question.credits.filter((credit) => credit !== null);
  const VERDICTS = {
    right: ["all right", (q) => known(q).length > 0 && known(q).every((c) => c === 1)],
    wrong: ["all wrong", (q) => known(q).length > 0 && known(q).every((c) => c === 0)],
  };
  if (data.models.length > 1) {
    VERDICTS.differ = ["models differ", (q) => new Set(known(q)).size > 1];
  }
  data.models.forEach((model, place) => {
    VERDICTS["right" + place] = [model + " right", (q) => q.credits[place] === 1];
    VERDICTS["wrong" + place] = [model + " wrong", (q) => q.credits[place] !== null && q.credits[place] < 1];
  });

  const verdict = (credit) => {
    if (credit === null) return ["· not scored by itself", "aside"];
    if (credit === 1) return ["✓ right", "right"];
    if (credit === 0) return ["✗ wrong", "wrong"];
    return ["◐ partly, " + credit.toFixed(2), "partly"];
  };

  const pictures = (question) => {
    const box = make("div", undefined, "shots");
    for (const key of question.pictures) {
      const uri = data.pictures[key];
      if (!uri) continue;
      const image = make("img");
      image.src = uri;
      image.alt = "Picture of question " + question.index;
      image.addEventListener("load", () => image.classList.toggle("tiny", image.naturalWidth <= 96));
      box.append(image);
    }
    if (!box.children.length) box.append(make("div", "no picture", "noimage"));
    return box;
  };

  const item = (question) => {
    const text = make("div");
    text.append(make("p", [question.set, question.category, question.index].filter(Boolean).join(" · "), "over"));
    text.append(make("p", question.text, "question"));
    const options = Object.entries(question.options);
    if (options.length) {
      const list = make("ul");
      for (const [letter, option] of options) list.append(make("li", letter + ". " + option));
      text.append(list);
    }
    const answers = make("dl");
    answers.append(make("dt", "right answer"), make("dd", question.answer || "—"));
    data.models.forEach((model, place) => {
      const [word, style] = verdict(question.credits[place]);
      const said = question.predictions[place];
      const entry = make("dd");
      entry.append(make("span", word, "mark " + style), " " + (said ?? "not asked"));
      const understood = question.understood[place];
      if (understood && understood !== said) entry.append(make("span", " (read as " + understood + ")", "faint"));
      answers.append(make("dt", model), entry);
    });
    text.append(answers);
    const element = make("li", undefined, "example");
    element.append(pictures(question), text);
    return element;
  };

  const draw = () => {
    const end = Math.min(shown.start + PAGE, shown.found.length);
    at("list").replaceChildren(...shown.found.slice(shown.start, end).map(item));
    at("list").start = shown.start + 1;
    const count = shown.found.length.toLocaleString("en");
    at("found").textContent = shown.found.length ? `${shown.start + 1} to ${end} of ${count}` : "None fits.";
    at("back").disabled = shown.start === 0;
    at("next").disabled = end === shown.found.length;
    at("save-found").disabled = !shown.found.length;
  };

  const filter = () => {
    const [, test] = VERDICTS[shown.verdict] ?? ["", () => true];
    shown.found = questions.filter(
      (q) => (!shown.set || q.set === shown.set) && test(q) && shown.words.every((word) => q.all.includes(word)),
    );
    shown.start = 0;
    draw();
  };

  const turn = (step) => {
    shown.start += step;
    draw();
    at("predictions").scrollIntoView();
  };

  for (const button of document.querySelectorAll("button[data-table]")) {
    const rows = data.tables[button.dataset.table];
    if (!rows) continue;
    button.hidden = false;
    button.addEventListener("click", () => save(button.dataset.table, rows));
  }

  if (questions.length) {
    for (const name of data.sets) at("by-set").append(new Option(name, name));
    for (const [key, [name]] of Object.entries(VERDICTS)) at("by-verdict").append(new Option(name, key));
    at("filter").hidden = false;
    document.querySelector(".pages").hidden = false;
    at("filter").addEventListener("submit", (event) => event.preventDefault());
    at("by-set").addEventListener("change", (event) => { shown.set = event.target.value; filter(); });
    at("by-verdict").addEventListener("change", (event) => { shown.verdict = event.target.value; filter(); });
    at("by-text").addEventListener("input", (event) => {
      shown.words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
      filter();
    });
    at("back").addEventListener("click", () => turn(-PAGE));
    at("next").addEventListener("click", () => turn(PAGE));
    at("save-found").addEventListener("click", () => {
      const heading = ["set", "index", "category", "question", "answer", ...data.models.flatMap((m) => [m, m + " credit"])];
      const rows = shown.found.map((q) => [
        q.set, q.index, q.category, q.text, q.answer, ...data.models.flatMap((_, n) => [q.predictions[n], q.credits[n]]),
      ]);
      save("predictions", [heading, ...rows]);
    });
    filter();
  }
})();
