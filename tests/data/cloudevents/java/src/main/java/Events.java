import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.cloudevents.CloudEvent;
import io.cloudevents.core.builder.CloudEventBuilder;
import io.cloudevents.core.data.BytesCloudEventData;
import io.cloudevents.jackson.JsonCloudEventData;
import io.cloudevents.jackson.JsonFormat;
import io.cloudevents.kafka.CloudEventSerializer;
import java.io.IOException;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.time.OffsetDateTime;
import java.util.Map;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeaders;

/** Writes the events as the Java SDK's Kafka serializer does: java Events < ../events.json > ../java.json */
class Events {
  private static final ObjectMapper JSON = new ObjectMapper();

  public static void main(String[] arguments) throws IOException {
    ArrayNode records = JSON.createArrayNode();
    for (JsonNode declared : JSON.readTree(System.in)) {
      CloudEvent event = event(declared);
      String name = declared.get("name").textValue();
      records.add(written(name, "binary", event, Map.of("cloudevents.serializer.encoding", "BINARY")));
      records.add(
          written(
              name,
              "structured",
              event,
              Map.of(
                  "cloudevents.serializer.encoding", "STRUCTURED",
                  "cloudevents.serializer.event_format", JsonFormat.CONTENT_TYPE)));
    }
    ObjectNode all = JSON.createObjectNode();
    all.put("sdk", "io.cloudevents:cloudevents-kafka and cloudevents-json-jackson " + arguments[0] + " (Maven)");
    all.set("records", records);
    System.out.println(JSON.writerWithDefaultPrettyPrinter().writeValueAsString(all));
  }

  private static CloudEvent event(JsonNode declared) {
    JsonNode data = declared.get("data");
    CloudEventBuilder builder =
        CloudEventBuilder.v1()
            .withId(declared.get("id").textValue())
            .withType(declared.get("type").textValue())
            .withSource(URI.create(declared.get("source").textValue()))
            .withTime(OffsetDateTime.parse(declared.get("time").textValue()))
            .withData(
                declared.has("bytes")
                    ? BytesCloudEventData.wrap(data.toString().getBytes(StandardCharsets.UTF_8))
                    : JsonCloudEventData.wrap(data));
    if (declared.has("datacontenttype")) {
      builder.withDataContentType(declared.get("datacontenttype").textValue());
    }
    if (declared.has("subject")) {
      builder.withSubject(declared.get("subject").textValue());
    }
    if (declared.has("extensions")) {
      declared
          .get("extensions")
          .fields()
          .forEachRemaining(entry -> builder.withExtension(entry.getKey(), entry.getValue().textValue()));
    }
    return builder.build();
  }

  private static ObjectNode written(String name, String mode, CloudEvent event, Map<String, ?> options)
      throws IOException {
    CloudEventSerializer serializer = new CloudEventSerializer();
    serializer.configure(options, false);
    RecordHeaders headers = new RecordHeaders();
    byte[] value = serializer.serialize("topic", headers, event);
    ObjectNode record = JSON.createObjectNode();
    record.put("name", name).put("mode", mode).putNull("key");
    ArrayNode list = record.putArray("headers");
    for (Header header : headers) {
      list.addArray().add(header.key()).add(new String(header.value(), StandardCharsets.UTF_8));
    }
    record.put("value", value);
    return record;
  }
}
