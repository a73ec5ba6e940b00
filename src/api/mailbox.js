
"use strict";
// Asks for the page again every second and takes over its list when that has changed.
let shown = document.getElementById("mails").innerHTML;
async function refresh() {
  try {
    const answer = await fetch("/dev/mailbox", { cache: "no-store" });
    if (answer.ok) {
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const mails = page.getElementById("mails");
      if (mails && mails.innerHTML !== shown) {
        shown = mails.innerHTML;
        document.getElementById("mails").replaceWith(document.adoptNode(mails));
      }
    }
  } catch {
    // The service is down or restarts; the next round will tell.
  }
  setTimeout(refresh, 1000);
}
setTimeout(refresh, 1000);
