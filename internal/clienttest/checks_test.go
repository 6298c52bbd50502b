package clienttest

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestBlanked makes the answers without content to every request in every
// version: they encode, and decode to the same.
func TestBlanked(t *testing.T) {
	t.Parallel()
	echoes := 0
	for key := range int16(kmsg.MaxKey + 1) {
		req := kmsg.RequestForKey(key)
		if req == nil {
			continue
		}
		fill(reflect.ValueOf(req).Elem())
		for version := range req.MaxVersion() + 1 {
			req.SetVersion(version)
			var sizes [2]int
			for _, c := range []content{empty, echoed} {
				resp := blanked(req, c)
				resp.SetVersion(version)
				encoded := resp.AppendTo(nil)
				again := req.ResponseKind()
				again.SetVersion(version)
				if err := again.ReadFrom(encoded); err != nil {
					t.Errorf("%T version %d, %s: %v", req, version, c, err)
				}
				sizes[c] = len(encoded)
			}
			if sizes[echoed] > sizes[empty] {
				echoes++
			}
		}
	}
	if echoes < 100 {
		t.Errorf("%d answers echo something, want 100 at least", echoes)
	}
}

// fill puts one element into each list, and a name into each name.
func fill(v reflect.Value) {
	for i := range v.NumField() {
		f := v.Field(i)
		switch {
		case f.Kind() == reflect.String:
			f.SetString("name")
		case f.Kind() == reflect.Slice && f.Type().Elem().Kind() == reflect.Struct:
			element := reflect.New(f.Type().Elem()).Elem()
			fill(element)
			f.Set(reflect.Append(f, element))
		case f.Kind() == reflect.Slice && f.Type().Elem().Kind() != reflect.Uint8:
			f.Set(reflect.Append(f, reflect.Zero(f.Type().Elem())))
		}
	}
}

// TestEcho looks at one answer that an echo must not be mistaken for.
func TestEcho(t *testing.T) {
	t.Parallel()
	req := kmsg.NewPtrListOffsetsRequest()
	rt := kmsg.NewListOffsetsRequestTopic()
	rt.Topic = "t"
	rp := kmsg.NewListOffsetsRequestTopicPartition()
	rp.Partition = 1
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	if n := len(blanked(req, empty).(*kmsg.ListOffsetsResponse).Topics); n != 0 {
		t.Errorf("an empty answer has %d topics", n)
	}
	resp := blanked(req, echoed).(*kmsg.ListOffsetsResponse)
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		t.Fatalf("the echo is %+v, want one partition", resp)
	}
	if p := resp.Topics[0].Partitions[0]; resp.Topics[0].Topic != "t" || p.Partition != 1 || p.Offset > 0 || p.ErrorCode != 0 {
		t.Errorf("the echo is %+v", resp)
	}
}

// TestChecksFail gives every check the output of a program that did nothing, and
// of one that said that everything is nothing.
func TestChecksFail(t *testing.T) {
	t.Parallel()
	var lines strings.Builder
	for _, step := range []string{
		"cluster", "metadata", "describe-topic", "create-topic", "produced", "consumed", "offsets", "epoch-end", "configs",
		"configs-altered", "config-resources", "log-dirs", "producers", "create-partitions", "delete-records", "delete-topic",
		"group-consumed", "assigned-consumed", "group-shared", "group-left", "committed", "groups", "described-group", "described-assigned",
		"offsets-left", "delete-group",
	} {
		fmt.Fprintf(&lines, `{"step":%q,"topic":"t","offset":0,"epoch":0,"end":0}`+"\n", step)
	}
	hollow, err := parseOutput([]byte(lines.String()))
	if err != nil {
		t.Fatal(err)
	}
	for name, out := range map[string]output{"silent": nil, "hollow": hollow} {
		for _, f := range features {
			if name == "hollow" && f.key == kmsg.ApiVersions {
				continue // a record was produced, which says it all
			}
			if err := f.check(&result{topic: "t", addr: "a:1", out: out, facts: &facts{node: 1, cluster: "c"}}); err == nil {
				t.Errorf("%s is right in the output of a %s program", f.name, name)
			}
		}
	}
}

// TestParseOutput: a line that no check would understand is an error.
func TestParseOutput(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{
		`no line`, `{"step":"produced"}`, `{"step":"epoch-end","end":1}`, `{"step":"metadata","topik":"t"}`, `{"step":"api-versions"}`,
	} {
		if _, err := parseOutput([]byte(bad)); err == nil {
			t.Errorf("%s is no error", bad)
		}
	}
	out, err := parseOutput([]byte(`{"step":"produced","codec":"gzip","key":"k","partition":1,"offset":5}` + "\n"))
	if l, err2 := out.one("produced"); err != nil || err2 != nil || *l.Offset != 5 || l.Partition != 1 {
		t.Errorf("parsed as %v: %v, %v", out, err, err2)
	}
}
