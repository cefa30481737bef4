"use strict";
// The start of the dashboard's pages: which one it is stands in the address.
{
  const { root, runsPage, runPage, comparePage, connect } = specfleet;
  const main = document.getElementById("main");
  const [first, second] = location.pathname.slice(root.pathname.length).split("/");
  if (first === "runs" && second) runPage(main, decodeURIComponent(second));
  else if (first === "compare") comparePage(main, new URLSearchParams(location.search));
  else runsPage(main);
  for (const link of document.querySelectorAll("header nav a")) {
    if (link.pathname === location.pathname) link.setAttribute("aria-current", "page");
  }
  connect();
}
