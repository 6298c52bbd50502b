package tidy

import (
	"go/ast"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// outside are the packages that turn bytes from a disk or a connection into
// something: theirs are the decoders.
var outside = []string{
	"broker", "broker/metadata", "client", "consumergroup", "consumergroup/record", "internal/config", "internal/doctor", "internal/history", "internal/node",
	"internal/section", "kafka", "kafka/guard", "log/batch", "log/control", "log/journal", "log/segment", "partition", "partition/store",
	"replication", "replication/transport", "wire/frame", "wire/intake", "wire/server",
}

// decoderName is how a func is called that decodes; one that is given bytes or a
// stream is a decoder, and wants a fuzz target of its package that calls it by
// name. What only checks them decodes as well.
var decoderName = regexp.MustCompile(`^([cC]heck|[dD]ecode|[pP]arse|[sS]niff|[rR]ead|[rR]estore|[oO]pen|[uU]nseal|[sS]plit|[sS]can|[uU]nmarshal)([A-Z]|$)`)

// reached lists the decoders that a fuzz target reaches without naming them,
// with that target.
var reached = map[string]string{
	"internal/history.Scan":           "FuzzRead",     // which is Scan to the end
	"log/batch.ParseHeader":           "FuzzValidate", // every entry point begins with it
	"log/batch.parseLZ4Header":        "FuzzDecompress",
	"log/batch.decodeZstd":            "FuzzDecompress",
	"log/batch.openGzip":              "FuzzDecompress",
	"log/batch.openZstd":              "FuzzDecompress",
	"log/batch.readPiece":             "FuzzDecompress",
	"log/batch.unfolder.open":         "FuzzDecompress",
	"replication.fsm.Restore":         "FuzzDecodeCheckpoint", // hands the body on to the FSM
	"broker/metadata.Restore":         "FuzzRestore",          // as restore, too
	"internal/section.Reader.Next":    "FuzzReader",
	"log/batch.parseOne":              "FuzzValidate", // every entry point begins with it
	"log/batch.readAll":               "FuzzDecompress",
	"log/batch.readRecord":            "FuzzIterator",
	"log/control.splitRecord":         "FuzzScan",
	"log/journal.decodeFileHeader":    "FuzzScan", // whose bytes may lie in a header
	"log/segment.parseFooter":         "FuzzOpen", // reads index files of any bytes
	"log/segment.parseHeader":         "FuzzOpen",
	"log/segment.scanIndex":           "FuzzOpen",
	"partition.decodeConfig":          "FuzzDecode", // applies what decodes
	"partition.decodeCreate":          "FuzzDecode",
	"partition.decodeDelete":          "FuzzDecode",
	"partition.decodeExpire":          "FuzzDecode",
	"partition.decodeFrame":           "FuzzDecode",
	"partition.decodeHeader":          "FuzzRestore",
	"partition.decodeLimits":          "FuzzDecode",
	"partition.decodeSetConfig":       "FuzzDecode",
	"replication.decodeConfiguration": "FuzzDecodeCheckpoint",
	"internal/node.openSealed":        "FuzzSealed",
	"internal/history.splitLine":      "FuzzRead",

	"replication/transport.readFixed": "FuzzHandshake", // every entry point begins with it
	"broker.machine.Restore":          "FuzzRestore",   // by restoreState
	"log/batch.Header.checkCRC":       "FuzzValidate",
	"kafka.checkBody":                 "FuzzDecodeFetch", // which begins with it
	"log/control.checkRecord":         "FuzzScan",
	"log/segment.Segment.checkHeader": "FuzzOpen",
	"log/segment.checkIndexVersion":   "FuzzOpen",
	"partition.checkConfig":           "FuzzDecode",
}

// noDecoder lists funcs that are called like a decoder and take bytes, and
// decode nothing, with what they do.
var noDecoder = map[string]string{
	"internal/node.openDir":        "its reader is the randomness of a new directory",
	"log/journal.readRecord":       "its bytes are the buffer to read into; decodeRecordHeader decodes",
	"log/segment.readFull":         "reads bytes as they are",
	"replication.emptyReader.Read": "gives no bytes",
	"wire/intake.Reader.Read":      "hands on the bytes of a connection as they are",

	"replication/transport.Member.DecodePeer": "the bytes are the address",
	"replication/transport.Solo.DecodePeer":   "the bytes are the address",
	"replication/transport.hearing.Read":      "reads bytes as they are",
}

// decoders returns the decoders of a file, as package.func or
// package.type.method.
func decoders(f source) (out []string) {
	for _, decl := range f.ast.Decls {
		fn, ok := decl.(*ast.FuncDecl)
		if !ok || !decoderName.MatchString(fn.Name.Name) || !takesBytes(fn.Type) {
			continue
		}
		name := fn.Name.Name
		if fn.Recv != nil {
			name = receiver(fn.Recv.List[0].Type) + "." + name
		}
		out = append(out, f.pkg+"."+name)
	}
	return out
}

// takesBytes reports whether a parameter is a []byte or an io.Reader.
func takesBytes(t *ast.FuncType) bool {
	return slices.ContainsFunc(t.Params.List, func(p *ast.Field) bool {
		switch x := p.Type.(type) {
		case *ast.ArrayType:
			id, ok := x.Elt.(*ast.Ident)
			return x.Len == nil && ok && id.Name == "byte"
		case *ast.SelectorExpr:
			id, ok := x.X.(*ast.Ident)
			return ok && id.Name == "io" && strings.HasPrefix(x.Sel.Name, "Read")
		}
		return false
	})
}

func receiver(e ast.Expr) string {
	switch x := e.(type) {
	case *ast.StarExpr:
		return receiver(x.X)
	case *ast.IndexExpr:
		return receiver(x.X)
	case *ast.Ident:
		return x.Name
	}
	return "?"
}

// fuzzTargets returns the fuzz targets of a file, as package.func, with the
// names that each mentions.
func fuzzTargets(f source) map[string][]string {
	out := make(map[string][]string)
	for _, decl := range f.ast.Decls {
		fn, ok := decl.(*ast.FuncDecl)
		if !ok || fn.Recv != nil || !strings.HasPrefix(fn.Name.Name, "Fuzz") {
			continue
		}
		var names []string
		ast.Inspect(fn.Body, func(n ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok {
				names = append(names, id.Name)
			}
			return true
		})
		out[f.pkg+"."+fn.Name.Name] = names
	}
	return out
}

// TestDecodersAreFuzzed finds the decoders of bytes from outside in the source,
// and fails for one that no fuzz target calls.
func TestDecodersAreFuzzed(t *testing.T) {
	t.Parallel()
	targets := make(map[string][]string)
	var all []string
	for _, f := range goFiles(t) {
		switch {
		case !slices.Contains(outside, f.pkg):
		case f.test():
			for name, calls := range fuzzTargets(f) {
				targets[name] = calls
			}
		default:
			all = append(all, decoders(f)...)
		}
	}
	if len(all) < 20 || len(targets) < 15 {
		t.Fatalf("found only %d decoders and %d fuzz targets", len(all), len(targets))
	}
	for _, why := range unfuzzed(all, targets) {
		t.Error(why)
	}
	for name := range reached {
		if !slices.Contains(all, name) && !strings.HasSuffix(name, ".Next") {
			t.Errorf("%s is in the list of decoders, and in no package", name)
		}
	}
	for name := range noDecoder {
		if !slices.Contains(all, name) {
			t.Errorf("%s is in the list of what decodes nothing, and in no package", name)
		}
	}
}

// unfuzzed says which decoders no target calls.
func unfuzzed(all []string, targets map[string][]string) (out []string) {
	for _, name := range all {
		pkg, fn, _ := strings.Cut(name, ".")
		if noDecoder[name] != "" {
			continue
		}
		if by := reached[name]; by != "" {
			if _, ok := targets[pkg+"."+by]; !ok {
				out = append(out, name+" is said to be reached by "+by+", which "+pkg+" does not have")
			}
			continue
		}
		called := false
		for target, calls := range targets {
			in, _, _ := strings.Cut(target, ".")
			called = called || in == pkg && slices.Contains(calls, fn[strings.LastIndex(fn, ".")+1:])
		}
		if !called {
			out = append(out, name+" decodes bytes from outside, and no fuzz target of its package calls it")
		}
	}
	return out
}

// TestUnfuzzed shows the rule a decoder with a target, and one without.
func TestUnfuzzed(t *testing.T) {
	t.Parallel()
	f, err := parse("p/a.go", []byte("package p; import \"io\"; func DecodeX(b []byte) {}; func (t *T[R]) parse(a int, r io.Reader) {}; func decoded(b []byte) {}; func Decode(s string) {}"))
	if err != nil {
		t.Fatal(err)
	}
	all := decoders(f)
	if want := []string{"p.DecodeX", "p.T.parse"}; !slices.Equal(all, want) {
		t.Errorf("decoders = %q, want %q", all, want)
	}
	g, err := parse("p/a_test.go", []byte("package p; func FuzzX(f *testing.F) { f.Fuzz(func(t *testing.T, b []byte) { DecodeX(b) }) }"))
	if err != nil {
		t.Fatal(err)
	}
	if got := unfuzzed(all, fuzzTargets(g)); len(got) != 1 || !strings.HasPrefix(got[0], "p.T.parse ") {
		t.Errorf("unfuzzed = %q, want p.T.parse alone", got)
	}
}
