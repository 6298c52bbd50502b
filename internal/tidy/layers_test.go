// Package tidy holds tests of the source itself: which package imports which,
// what the deciding packages stay away from, and what no file may say. It has
// no code of its own.
package tidy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/flotilla-log/flotilla"

// layer is one package of this module and the packages of this module that it
// may import.
type layer struct {
	pkg     string
	imports []string
}

// layers is the package table of docs/design.md, in its order: an arrow points
// at an earlier line only. A package that is not listed fails the test. Think
// hard before adding an arrow.
var layers = []layer{
	{"internal/tidy", nil},
	{"internal/mutants", nil},
	{"internal/errcode", nil},
	{"internal/config", nil},
	{"internal/histogram", nil},
	{"internal/section", nil},
	{"internal/vfs", nil},
	{"internal/netsim", nil},
	{"internal/proctest", nil},
	{"internal/history", nil},
	{"log/batch", nil},
	{"log/journal", []string{"internal/histogram", "internal/vfs"}},
	{"log/segment", []string{"internal/vfs", "log/batch"}},
	{"log/control", []string{"internal/vfs"}},
	{"partition", []string{"internal/errcode", "internal/section", "log/batch"}},
	{"partition/store", []string{
		"internal/config", "internal/errcode", "internal/histogram", "internal/section", "internal/vfs", "log/batch",
		"log/segment", "partition",
	}},
	{"replication/transport", []string{"internal/errcode"}},
	{"replication", []string{
		"internal/errcode", "internal/section", "internal/vfs", "log/control", "log/journal", "replication/transport",
	}},
	{"consumergroup/record", nil},
	{"consumergroup/assign", []string{"consumergroup/record"}},
	{"consumergroup", []string{"consumergroup/assign", "consumergroup/record", "internal/errcode", "internal/section"}},
	{"broker/metadata", []string{"internal/config", "internal/errcode", "internal/section"}},
	{"broker/coordinator", []string{"consumergroup", "consumergroup/record", "internal/errcode", "internal/section", "log/batch", "replication"}},
	{"broker", []string{
		"broker/coordinator", "broker/metadata", "consumergroup", "consumergroup/record", "internal/config", "internal/errcode",
		"internal/histogram", "internal/section", "internal/vfs", "log/batch", "log/control", "log/journal", "log/segment",
		"partition", "partition/store", "replication", "replication/transport",
	}},
	{"wire/pb", nil},
	{"wire/pb/gen", nil},
	{"wire/frame", []string{"internal/errcode", "wire/pb"}},
	{"wire/intake", []string{"broker"}},
	{"internal/delivery", []string{"broker"}},
	{"wire/server", []string{
		"broker", "consumergroup", "consumergroup/record", "internal/delivery", "internal/errcode", "wire/frame", "wire/intake", "wire/pb",
	}},
	{"internal/grouptest", []string{"broker", "consumergroup", "consumergroup/record", "internal/errcode"}},
	{"kafka/guard", nil},
	{"kafka/guard/gen", nil},
	{"kafka", []string{"broker", "consumergroup", "consumergroup/record", "internal/delivery", "internal/errcode", "kafka/guard", "log/batch", "wire/frame", "wire/intake"}},
	{"client", []string{"internal/errcode", "log/batch", "wire/frame", "wire/pb"}},
	{"internal/grouplife", []string{"client", "internal/history"}},
	{"internal/admin", []string{"broker", "internal/histogram"}},
	{"internal/node", []string{
		"broker", "broker/coordinator", "broker/metadata", "consumergroup", "internal/admin", "internal/config",
		"internal/errcode", "internal/vfs", "kafka", "log/batch", "log/control", "log/journal", "log/segment",
		"partition", "partition/store", "replication", "replication/transport", "wire/frame", "wire/server",
	}},
	{"internal/doctor", []string{
		"broker/metadata", "internal/node", "internal/section", "internal/vfs", "log/batch", "log/control", "log/journal", "log/segment",
		"partition", "partition/store", "replication",
	}},
	{"internal/sim", []string{
		"broker", "client", "consumergroup", "internal/config", "internal/errcode", "internal/grouplife", "internal/history", "internal/netsim", "internal/node", "internal/vfs",
		"kafka", "replication/transport", "wire/server",
	}},
	{"bench", []string{"client", "internal/errcode", "internal/history"}},
	{"internal/peer", nil},
	{"bench/peers", []string{"bench", "internal/peer"}},
	{"bench/failover", []string{"bench", "client", "internal/peer"}},
	{"bench/groups", []string{"bench", "internal/peer"}},
	{"cmd/demo", []string{"client", "log/batch"}},
	{"cmd/flotilla", []string{
		"bench", "client", "internal/config", "internal/doctor", "internal/errcode", "internal/node", "internal/sim", "internal/vfs",
		"log/batch",
	}},
	{"internal/killtest", []string{"client", "internal/errcode", "internal/grouplife", "internal/history", "internal/proctest"}},
	{"internal/clienttest", []string{"internal/proctest"}},
	{"internal/suites", []string{"internal/proctest"}},
	{"examples/franz-go", nil},
	{"examples/franz-go/orders", nil},
	{"examples/native/orders", []string{"client"}},
	{"internal/disktest", []string{"client", "internal/errcode", "internal/proctest"}},
	{"internal/boundtest", []string{"client", "internal/node", "internal/vfs", "log/batch", "wire/frame", "wire/pb"}},
	{"internal/soak", []string{"client", "internal/errcode", "internal/proctest", "log/batch"}},
	{"internal/kafkadiff", []string{"internal/errcode", "internal/node", "internal/peer", "internal/vfs", "log/batch"}},
}

// only lists the folders that may import each outside module, with what is
// below them. A module that is not listed is imported by nobody.
var only = map[string][]string{
	"github.com/HdrHistogram/hdrhistogram-go": {"bench"},
	"github.com/anishathalye/porcupine":       {"internal/history"},
	"github.com/bufbuild/protocompile":        {"wire/pb/gen"},
	"github.com/hashicorp/go-hclog":           {"replication"},
	"github.com/hashicorp/raft":               {"internal/sim", "replication"},
	"github.com/klauspost/compress":           {"log/batch"},
	"github.com/pierrec/lz4":                  {"log/batch"},
	"github.com/prometheus":                   {"internal/admin"},
	"github.com/spf13/cobra":                  {"cmd"},
	"github.com/spf13/pflag":                  {"cmd"},
	"github.com/tidwall/wal":                  {"log/control"},
	"github.com/twmb/franz-go":                {"bench", "examples/franz-go", "internal/grouplife", "internal/kafkadiff", "internal/sim", "kafka"},
	"golang.org/x/sys":                        {"internal/delivery", "internal/vfs", "kafka"},
	"google.golang.org/protobuf":              {"client", "wire"},
	"go.yaml.in/yaml/v4":                      {"internal/config"},
}

// testOnly lists the outside modules that any test may import, and nothing
// else may.
var testOnly = []string{
	"github.com/anishathalye/porcupine",
	"github.com/cockroachdb/datadriven",
	"github.com/google/go-cmp",
	"github.com/twmb/franz-go",
	"pgregory.net/rapid",
}

// forbidden says why pkg may not import imp, or nothing if it may. pkg is a
// folder of this module; test says that a test file asks.
func forbidden(pkg, imp string, test bool) string {
	if ours, ok := strings.CutPrefix(imp, module+"/"); ok {
		i := slices.IndexFunc(layers, func(l layer) bool { return l.pkg == pkg })
		switch {
		case i < 0:
			return fmt.Sprintf("package %s is in no layer", pkg)
		case slices.Contains(layers[i].imports, ours):
			return ""
		case test && (ours == pkg || ours == "log/batch" || within(ours, "consumergroup") || strings.HasPrefix(ours, "internal/")):
			return "" // a test may make the records that it sends, and be the coordinator that it asks
		}
		return fmt.Sprintf("%s may not import %s", pkg, ours)
	}
	if first, _, _ := strings.Cut(imp, "/"); !strings.Contains(first, ".") {
		return "" // the standard library
	}
	if test && slices.ContainsFunc(testOnly, func(mod string) bool { return within(imp, mod) }) {
		return ""
	}
	for mod, homes := range only {
		if !within(imp, mod) {
			continue
		}
		if slices.ContainsFunc(homes, func(home string) bool { return within(pkg, home) }) {
			return ""
		}
		return fmt.Sprintf("%s imports %s, which only %s may", pkg, mod, strings.Join(homes, " and "))
	}
	return fmt.Sprintf("%s imports %s, which is in no list", pkg, imp)
}

// within reports whether the slash-separated name lies in or below folder.
func within(name, folder string) bool {
	return name == folder || strings.HasPrefix(name, folder+"/")
}

func TestLayers(t *testing.T) {
	t.Parallel()
	for _, f := range goFiles(t) {
		if !slices.ContainsFunc(layers, func(l layer) bool { return l.pkg == f.pkg }) {
			t.Errorf("%s: package %s is in no layer", f.name, f.pkg)
			continue
		}
		for _, imp := range f.imports() {
			if why := forbidden(f.pkg, imp, f.test()); why != "" {
				t.Errorf("%s: %s", f.name, why)
			}
		}
	}
}

// TestLayersPointUp keeps the table itself free of cycles.
func TestLayersPointUp(t *testing.T) {
	t.Parallel()
	above := make(map[string]bool)
	for _, l := range layers {
		if above[l.pkg] {
			t.Errorf("%s stands twice", l.pkg)
		}
		for _, imp := range l.imports {
			if !above[imp] {
				t.Errorf("%s may import %s, which does not stand above it", l.pkg, imp)
			}
		}
		above[l.pkg] = true
	}
}

func TestForbidden(t *testing.T) {
	t.Parallel()
	const flotilla = module + "/"
	tests := []struct {
		pkg, imp string
		test     bool
		allowed  bool
	}{
		{pkg: "consumergroup", imp: flotilla + "internal/errcode", allowed: true},
		{pkg: "consumergroup", imp: flotilla + "broker"},
		{pkg: "consumergroup", imp: flotilla + "broker", test: true},
		{pkg: "consumergroup", imp: flotilla + "internal/history", test: true, allowed: true},
		{pkg: "consumergroup", imp: flotilla + "internal/history"},
		{pkg: "consumergroup", imp: flotilla + "consumergroup", test: true, allowed: true},
		{pkg: "client", imp: flotilla + "broker"},
		{pkg: "bench", imp: flotilla + "broker"},
		{pkg: "util", imp: flotilla + "internal/errcode"},
		{pkg: "partition", imp: "slices", allowed: true},
		{pkg: "log/control", imp: "github.com/tidwall/wal", allowed: true},
		{pkg: "log/journal", imp: "github.com/tidwall/wal"},
		{pkg: "log/journal", imp: "github.com/tidwall/wal", test: true},
		{pkg: "log/batch", imp: "github.com/klauspost/compress/zstd", allowed: true},
		{pkg: "kafka", imp: "github.com/klauspost/compress/zstd"},
		{pkg: "log/batch", imp: "github.com/klauspost/compressor"},
		{pkg: "replication/transport", imp: "github.com/hashicorp/raft", allowed: true},
		{pkg: "broker", imp: "github.com/hashicorp/raft"},
		{pkg: "partition", imp: "pgregory.net/rapid", test: true, allowed: true},
		{pkg: "partition", imp: "pgregory.net/rapid"},
		{pkg: "partition", imp: "example.com/new"},
	}
	for _, tt := range tests {
		if why := forbidden(tt.pkg, tt.imp, tt.test); (why == "") != tt.allowed {
			t.Errorf("forbidden(%q, %q, %t) = %q, want allowed %t", tt.pkg, tt.imp, tt.test, why, tt.allowed)
		}
	}
}
