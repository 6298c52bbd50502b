package config

import "testing"

// TestKafkaNames: clients read a node's settings by Kafka's names, librdkafka's tests
// its rack among them. What nobody has set, and is null in Kafka, is null.
func TestKafkaNames(t *testing.T) {
	for _, tt := range []struct {
		flags map[string]string
		name  string
		want  KafkaSetting
	}{
		{nil, "broker.rack", KafkaSetting{Kind: Text, Null: true}},
		{map[string]string{"rack": "east"}, "broker.rack", KafkaSetting{Kind: Text, Value: "east", Set: true}},
		{nil, "replica.selector.class", KafkaSetting{Kind: Text, Value: LeaderSelector, Null: true}},
		{map[string]string{"node.id": "7"}, "broker.id", KafkaSetting{Kind: Int, Value: "7", Set: true}},
		{nil, "connections.max.idle.ms", KafkaSetting{Kind: Int, Long: true, Value: "600000"}},
		{nil, "offsets.retention.minutes", KafkaSetting{Kind: Int, Value: "10080"}},
		{nil, "auto.create.topics.enable", KafkaSetting{Kind: Bool, Value: "true"}},
	} {
		v, err := Resolve(Sources{Flags: tt.flags})
		if err != nil {
			t.Fatal(err)
		}
		var got KafkaSetting
		for _, s := range v.Kafka() {
			if s.Name == tt.name {
				got = s
			}
		}
		tt.want.Name, tt.want.Doc = tt.name, got.Doc
		if got != tt.want || got.Doc == "" {
			t.Errorf("%s with %v: %+v, want %+v", tt.name, tt.flags, got, tt.want)
		}
	}
}
