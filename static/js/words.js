// The same words as jobs/words.py, for what ticks in the browser.

export const number = new Intl.NumberFormat(document.documentElement.lang);
const tenths = new Intl.NumberFormat(document.documentElement.lang, { minimumFractionDigits: 1, maximumFractionDigits: 1 });

export function duration(seconds) {
  if (seconds >= 0.0005 && seconds < 0.05) return `${Math.round(1000 * seconds)} ms`;
  if (seconds < 1) return `${tenths.format(Math.max(seconds, 0))} s`;
  const whole = Math.floor(seconds);
  const two = (n) => String(n).padStart(2, "0");
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${two(Math.floor(whole % 3600 / 60))} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor(whole % 86400 / 3600)} h`;
}

export function about(seconds) {
  if (seconds < 55) return seconds > 7 ? `${Math.max(5, Math.round(seconds / 5) * 5)} s` : gettext("a few seconds");
  if (seconds < 5400) return `${Math.max(1, Math.round(seconds / 60))} min`;
  return `${Math.round(seconds / 3600)} h`;
}

export function ago(moment) {
  const seconds = (Date.now() - moment) / 1000;
  if (seconds < 45) return gettext("just now");
  if (seconds < 3600) return interpolate(gettext("%s min ago"), [Math.max(1, Math.round(seconds / 60))]);
  if (seconds < 22 * 3600) return interpolate(gettext("%s h ago"), [Math.round(seconds / 3600)]);
  return null; // older than that it does not change while one looks
}
