"use strict";
// What every file here shares: one global name, elements that hold text and never markup, and how numbers are written.
const specfleet = {};
{
  /** An element with attributes and children. Strings become text nodes: nothing that comes from a run is ever parsed. */
  function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (value === undefined || value === null || value === false) continue;
      if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
      else made.setAttribute(key, value === true ? "" : value);
    }
    made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
    return made;
  }

  /** A number with so many decimals; an en dash where there is none. */
  function fixed(value, decimals = 1) {
    if (!Number.isFinite(value)) return "–";
    const text = value.toLocaleString("en", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
    return text.replace(/^-(?=[0.,]*$)/, "").replace("-", "−");
  }

  /** A number with three significant digits. */
  function short(value) {
    if (!Number.isFinite(value)) return "–";
    const size = Math.abs(value);
    return fixed(value, size >= 100 || size === 0 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : size >= 0.1 ? 3 : 4);
  }

  /** A count: 12,345; from a million on in millions. */
  function count(value) {
    if (!Number.isFinite(value)) return "–";
    if (value >= 1e9) return `${fixed(value / 1e9, 2)} G`;
    return value >= 1e7 ? `${fixed(value / 1e6, 1)} M` : fixed(value, 0);
  }

  const percent = (share, decimals = 0) => (Number.isFinite(share) ? `${fixed(100 * share, decimals)} %` : "–");

  /** Seconds as a person says them. */
  function duration(seconds) {
    if (!Number.isFinite(seconds)) return "–";
    if (seconds < 1) return `${short(seconds * 1e3)} ms`;
    if (seconds < 100) return `${fixed(seconds, 1)} s`;
    const minutes = Math.floor(seconds / 60);
    return minutes < 100
      ? `${minutes} min ${Math.floor(seconds % 60)} s`
      : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  }

  /** Seconds since 1970 as local date and time. */
  function moment(seconds) {
    if (!Number.isFinite(seconds) || seconds <= 0) return "–";
    const time = new Date(seconds * 1e3);
    const two = (value) => String(value).padStart(2, "0");
    const day = `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())}`;
    return `${day} ${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
  }

  /** "a", "a and b", "a, b and c". */
  function list(words) {
    return words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`;
  }

  /** The entry for which `value` is largest (or smallest, with a minus), without those that have none. */
  function best(entries, value) {
    return entries.filter((entry) => Number.isFinite(value(entry))).reduce(
      (top, entry) => (top === undefined || value(entry) > value(top) ? entry : top),
      undefined,
    );
  }

  const unique = (values) => [...new Set(values)];

  Object.assign(specfleet, { element, fixed, short, count, percent, duration, moment, list, best, unique });
}
