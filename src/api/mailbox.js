
"use strict";
// Asks for the page again every second. A mail that is already shown stays the same element, so
// that an opened part stays open when another mail arrives.
const list = document.getElementById("mails");
const names = (nodes) => nodes.map((node) => node.id).join(" ");
async function refresh() {
  try {
    const answer = await fetch("/dev/mailbox", { cache: "no-store" });
    if (answer.ok) {
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const found = [...page.getElementById("mails").children];
      if (names(found) !== names([...list.children])) {
        list.replaceChildren(...found.map((node) => document.getElementById(node.id) ?? node));
      }
    }
  } catch {
    // The service is down or restarts; the next round will tell.
  }
  setTimeout(refresh, 1000);
}
setTimeout(refresh, 1000);
