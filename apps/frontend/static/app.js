"use strict";
// Asks the backend once a second. Texts from it are only ever set as text, never as markup.

const FINAL = ["succeeded", "failed", "cancelled"];
const byId = (id) => document.getElementById(id);

async function ask(path, options = {}) {
  const answer = await fetch("api/" + path, options);
  const body = await answer.json();
  if (!answer.ok && !(path === "ready" && body.dependencies)) {
    const detail = Array.isArray(body.detail) ? body.detail.map((d) => `${d.loc.at(-1)}: ${d.msg}`).join("; ") : "";
    throw new Error(body.error ? [body.error.message, body.error.why].filter(Boolean).join(": ") : detail || answer.status);
  }
  return body;
}

function element(name, properties = {}, children = []) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function tell(error) {
  byId("error").textContent = error ? error.message : "";
  byId("error").hidden = !error;
}

async function showServices() {
  const services = await ask("services");
  byId("services").replaceChildren(...services.map((service) => {
    const name = service.web
      ? element("a", { href: service.address, textContent: service.name, rel: "noreferrer" })
      : element("span", { textContent: service.name });
    return element("li", {}, [name, element("span", { className: "address", textContent: service.address })]);
  }));
}

async function showReady() {
  const { ready, dependencies } = await ask("ready");
  const away = Object.entries(dependencies).filter(([, state]) => !state.ready);
  byId("ready").className = ready ? "good" : "bad";
  byId("ready").textContent = ready ? "ready" : "not ready: " + away.map(([n, s]) => `${n} (${s.reason})`).join(", ");
}

const numbers = (metrics) => Object.entries(metrics || {}).filter(([name]) => name !== "epoch_seconds")
  .map(([name, value]) => `${name} ${Number(value).toPrecision(4)}`).join("  ");

// Filled in place, so that a button that is about to be clicked stays where it is.
function fill(made, job) {
  const done = job.epoch || 0;
  const bar = job.epochs ? [element("progress", { max: job.epochs, value: done }), ` ${done}/${job.epochs}`] : [String(done || "")];
  const state = element("td", {}, [element("span", { className: job.state, textContent: job.state })]);
  if (job.error) state.append(element("span", { className: "reason", textContent: job.error }));
  const share = job.heldout_accuracy;
  const cells = [
    element("td", { textContent: job.job }), state, element("td", {}, bar),
    element("td", { textContent: numbers(job.metrics) }),
    element("td", { textContent: share === null ? "" : (100 * share).toFixed(1) + " %" }),
  ];
  const last = made.lastElementChild;
  cells.forEach((cell, i) => made.children[i].replaceWith(cell));
  if (FINAL.includes(job.state)) last.replaceChildren();
  Object.assign(made.dataset, { job: job.job, state: job.state, epoch: done });
}

function row(job) {
  const known = [...byId("trainings").children].find((tr) => tr.dataset.job === job.job);
  const made = known || element("tr", {}, Array.from({ length: 6 }, () => element("td")));
  if (!known && !FINAL.includes(job.state)) {
    const cancel = element("button", { type: "button", textContent: "Cancel", onclick: () => cancelled(job.job) });
    made.lastElementChild.append(cancel);
  }
  fill(made, job);
  return made;
}

async function showTrainings() {
  const jobs = await ask("trainings?limit=20");
  // Only those that run have news to ask for.
  const shown = await Promise.all(jobs.map((job) => (
    job.state === "running" ? ask("trainings/" + encodeURIComponent(job.job)) : job)));
  const rows = shown.map(row), body = byId("trainings");
  if (rows.length !== body.children.length || rows.some((tr, i) => body.children[i] !== tr)) body.replaceChildren(...rows);
  byId("none").hidden = shown.length > 0;
}

async function cancelled(job) {
  await attempt(async () => { await ask("trainings/" + encodeURIComponent(job), { method: "DELETE" }); await showTrainings(); });
}

async function started(event) {
  event.preventDefault();
  const form = new FormData(event.target);
  const body = JSON.stringify({ experiment: form.get("experiment"), epochs: Number(form.get("epochs")) });
  const headers = { "Content-Type": "application/json" };
  await attempt(async () => { await ask("trainings", { method: "POST", headers, body }); await showTrainings(); });
}

async function attempt(work) {
  try {
    await work();
    tell(null);
  } catch (error) {
    tell(error);
  }
}

function every(seconds, work) {
  const again = async () => {
    try {
      if (!document.hidden) await work();
    } catch (error) {
      byId("ready").className = "bad";
      byId("ready").textContent = error.message;
    }
    setTimeout(again, 1000 * seconds);
  };
  again();
}

byId("start").addEventListener("submit", started);
every(1, showTrainings);
every(5, showReady);
every(60, showServices);
