//go:build clients

package clienttest

import (
	"path/filepath"
	"slices"
	"testing"
)

// TestOrders runs the order examples of Kafka's clients: see testOrders and testOrdersKilled.
func TestOrders(t *testing.T) {
	for _, tc := range []struct {
		name, folder string
		program      func(example []string) []string // of the command that runs the folder's example
	}{
		{"kafkajs", "kafkajs", func([]string) []string { return []string{"node", "orders.js"} }},
		{"franz-go", "franz-go", func(example []string) []string { return []string{example[0] + "-orders"} }},
		{"java", "java", func(example []string) []string { return append(example[:len(example)-1:len(example)-1], "Orders") }},
		{"java, consumer protocol", "java", func(example []string) []string {
			return append(example[:len(example)-1:len(example)-1], "-Dgroup.protocol=consumer", "Orders")
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			example, err := builds[tc.folder]()
			if err != nil {
				t.Fatal(err)
			}
			dir, err := filepath.Abs(filepath.Join(buildDir, tc.folder))
			if err != nil {
				t.Fatal(err)
			}
			command := tc.program(slices.Clone(example))
			t.Run("groups", func(t *testing.T) { t.Parallel(); testOrders(t, dir, command...) })
			t.Run("killed", func(t *testing.T) { t.Parallel(); testOrdersKilled(t, dir, command...) })
		})
	}
}
