// What the console adds to htmx. Every page works without it.
"use strict";

// After a form was refused or merged, reading goes on at what is to be mended.
document.addEventListener("DOMContentLoaded", () => {
  const problem = document.getElementById("error");
  if (problem) problem.focus();
});

// A form is sent once: a second click on a slow gateway would be a second write.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method !== "post" || event.defaultPrevented) return;
  if (form.dataset.sent) {
    event.preventDefault();
    return;
  }
  form.dataset.sent = "yes";
  form.setAttribute("aria-busy", "true");
});

// The browser's back button may bring a page back as it was left.
window.addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) {
    delete form.dataset.sent;
    form.removeAttribute("aria-busy");
  }
});

// The menu closes where a click or Escape leaves it.
document.addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details.me[open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const menu of document.querySelectorAll("details.me[open]")) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});

document.addEventListener("htmx:beforeRequest", (event) => {
  event.detail.target.setAttribute("aria-busy", "true");
});
document.addEventListener("htmx:afterRequest", (event) => {
  event.detail.target.removeAttribute("aria-busy");
});

// A file that is too large is refused before it is sent.
document.addEventListener("change", (event) => {
  const input = event.target;
  if (!(input instanceof HTMLInputElement) || !input.dataset.maxBytes) return;
  const size = input.files[0] ? input.files[0].size : 0;
  input.setCustomValidity(size > Number(input.dataset.maxBytes) ? input.dataset.tooLarge : "");
  input.reportValidity();
});

// One box picks all of the page.
document.addEventListener("change", (event) => {
  if (!(event.target instanceof HTMLInputElement) || !("picksAll" in event.target.dataset)) return;
  for (const box of event.target.form.querySelectorAll('input[name^="pick."]')) box.checked = event.target.checked;
});

// An answer is read while it comes; htmx shows only what is complete. Its markup is parsed, never run.
document.addEventListener("htmx:beforeSend", (event) => {
  const target = event.detail.target;
  if (!("speaks" in target.dataset)) return;
  const request = event.detail.xhr;
  request.addEventListener("progress", () => {
    const said = new DOMParser().parseFromString(request.responseText, "text/html").querySelector(".said");
    const waiting = target.querySelector("[data-waiting]");
    if (said && waiting) waiting.textContent = said.textContent;
  });
});
