// Make tests/data/browser_dates.json: how browsers write dates, by language.
//
//   node dev/browser_dates.mjs > tests/data/browser_dates.json
//
// Output: by language, a list for each form, with six dates of a year in it. Made with Node 20 and its ICU.

const LANGUAGES =
  "ar-EG bg-BG bn-BD ca-ES cs-CZ cy-GB da-DK de-DE de-CH el-GR en-US en-GB en-IN es-ES es-MX et-EE fa-IR fi-FI fil-PH " +
  "fr-FR ga-IE gl-ES he-IL hi-IN hr-HR hu-HU hy-AM id-ID is-IS it-IT ja-JP ka-GE kk-KZ ko-KR lt-LT lv-LV mk-MK mn-MN " +
  "ms-MY nb-NO nl-NL pl-PL pt-BR pt-PT ro-RO ru-RU sk-SK sl-SI sq-AL sr-RS sv-SE sw-KE ta-IN te-IN th-TH tr-TR uk-UA " +
  "ur-PK uz-UZ vi-VN zh-CN zh-TW";
const FORMS = [
  {},
  { dateStyle: "full", timeStyle: "long" },
  { dateStyle: "medium", timeStyle: "medium" },
  { dateStyle: "full" },
];

const dates = [0, 58, 121, 190, 255, 330].map((day, place) =>
  new Date(Date.UTC(2026, 0, 3 + day, (place * 7 + 1) % 24, 5 * place, 9 * place)),
);
const written = {};
for (const language of LANGUAGES.split(" ")) {
  written[language] = FORMS.map((form) =>
    dates.map((date) => date.toLocaleString(language, { ...form, timeZone: "UTC" })),
  );
}
console.log(JSON.stringify(written, null, 0).replaceAll("]],", "]],\n"));
