// Writes the events as the JavaScript SDK does: node events.js < ../events.json > ../javascript.json
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { CloudEvent, Kafka } from "cloudevents";

const { version } = createRequire(import.meta.url)("cloudevents/package.json");

// The SDK leaves it to the producer to make bytes of a payload, and clients such as KafkaJS send no undefined header.
const bytes = (value) => Buffer.from(Buffer.isBuffer(value) || typeof value === "string" ? value : JSON.stringify(value));

const written = (name, mode, message) => ({
  name,
  mode,
  key: message.key ?? null,
  headers: Object.entries(message.headers)
    .filter(([, value]) => value !== undefined)
    .map(([header, value]) => [header, String(value)]),
  value: bytes(message.value).toString("base64"),
});

const records = JSON.parse(readFileSync(0)).flatMap(({ name, extensions, bytes: isBytes, data, ...attributes }) => {
  const payload = isBytes ? Buffer.from(JSON.stringify(data)) : data;
  const event = new CloudEvent({ ...attributes, ...extensions, data: payload });
  return [
    written(name, "binary", Kafka.binary(event)),
    written(name, "structured", Kafka.structured(event)),
  ];
});
console.log(JSON.stringify({ sdk: `cloudevents ${version} (npm)`, records }, null, 2));
