// What somebody has typed or chosen, and not sent.

export function isChanged(field) {
  if (field.type === "hidden") return false;
  if (field.matches("input[type=checkbox], input[type=radio]")) return field.checked !== field.defaultChecked;
  if (field.matches("input, textarea")) return field.value !== field.defaultValue;
  // without another word a field with choices begins with the first
  return field.matches("select") && field.selectedIndex !== Math.max(0, [...field.options].findIndex((option) => option.defaultSelected));
}

export function isAnythingTyped() {
  return [...document.querySelectorAll("main input, main textarea, main select")].some(isChanged);
}
