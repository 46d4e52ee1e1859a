// Writes the events as the Go SDK does: go run . < ../events.json > ../go.json
package main

import (
	"context"
	"encoding/json"
	"os"
	"time"

	"github.com/IBM/sarama"
	"github.com/cloudevents/sdk-go/protocol/kafka_sarama/v2"
	"github.com/cloudevents/sdk-go/v2/binding"
	"github.com/cloudevents/sdk-go/v2/event"
)

const version = "v2.16.2"

type declared struct {
	Name            string
	ID              string
	Type            string
	Source          string
	Time            time.Time
	Subject         string
	Extensions      map[string]string
	DataContentType string
	Bytes           bool
	Data            json.RawMessage
}

type record struct {
	Name    string      `json:"name"`
	Mode    string      `json:"mode"`
	Key     *string     `json:"key"`
	Headers [][2]string `json:"headers"`
	Value   []byte      `json:"value"`
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func written(name string, mode string, ctx context.Context, e *event.Event) record {
	message := &sarama.ProducerMessage{}
	must(0, kafka_sarama.WriteProducerMessage(ctx, (*binding.EventMessage)(e), message))
	made := record{Name: name, Mode: mode, Value: must(message.Value.Encode())}
	if message.Key != nil {
		key := string(must(message.Key.Encode()))
		made.Key = &key
	}
	for _, header := range message.Headers {
		made.Headers = append(made.Headers, [2]string{string(header.Key), string(header.Value)})
	}
	return made
}

func main() {
	var all []declared
	must(0, json.NewDecoder(os.Stdin).Decode(&all))
	records := []record{}
	for _, one := range all {
		e := event.New()
		e.SetID(one.ID)
		e.SetType(one.Type)
		e.SetSource(one.Source)
		e.SetTime(one.Time)
		if one.Subject != "" {
			e.SetSubject(one.Subject)
		}
		for name, value := range one.Extensions {
			e.SetExtension(name, value)
		}
		contentType := one.DataContentType
		if contentType == "" {
			contentType = event.ApplicationJSON
		}
		if one.Bytes {
			must(0, e.SetData(contentType, []byte(one.Data)))
			e.DataBase64 = true
		} else {
			var data map[string]any
			must(0, json.Unmarshal(one.Data, &data))
			must(0, e.SetData(contentType, data))
		}
		background := context.Background()
		records = append(records,
			written(one.Name, "binary", binding.WithForceBinary(background), &e),
			written(one.Name, "structured", binding.WithForceStructured(background), &e),
		)
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetIndent("", "  ")
	must(0, encoder.Encode(map[string]any{"sdk": "github.com/cloudevents/sdk-go/v2 " + version + " (Go)", "records": records}))
}
