// Command gen compiles flotilla.proto to Go: protocompile parses it, and
// protoc-gen-go, run from this module's own version of protobuf, writes the
// code. Neither protoc nor anything outside go.mod is needed.
//
// Usage, from wire/pb: go run ./gen
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/protoutil"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

const (
	source = "flotilla.proto"
	output = "flotilla.pb.go"
	plugin = "google.golang.org/protobuf/cmd/protoc-gen-go"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("gen: ")
	code, err := generate(context.Background(), ".")
	if err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile(output, code, 0o644); err != nil {
		log.Fatal(err)
	}
}

// generate returns the Go code for the proto file in dir.
func generate(ctx context.Context, dir string) ([]byte, error) {
	text, err := os.ReadFile(filepath.Join(dir, source))
	if err != nil {
		return nil, err
	}
	c := protocompile.Compiler{
		Resolver: &protocompile.SourceResolver{
			Accessor: protocompile.SourceAccessorFromMap(map[string]string{source: string(text)}),
		},
		SourceInfoMode: protocompile.SourceInfoStandard, // keeps the comments
	}
	files, err := c.Compile(ctx, source)
	if err != nil {
		return nil, err
	}
	return run(ctx, dir, &pluginpb.CodeGeneratorRequest{
		FileToGenerate: []string{source},
		Parameter:      proto.String("paths=source_relative"),
		ProtoFile:      []*descriptorpb.FileDescriptorProto{protoutil.ProtoFromFileDescriptor(files[0])},
	})
}

// run hands req to protoc-gen-go and returns the one file that it makes.
func run(ctx context.Context, dir string, req *pluginpb.CodeGeneratorRequest) ([]byte, error) {
	in, err := proto.Marshal(req)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "go", "run", plugin)
	cmd.Dir = dir
	cmd.Stdin = bytes.NewReader(in)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", plugin, err)
	}
	var resp pluginpb.CodeGeneratorResponse
	if err := proto.Unmarshal(out, &resp); err != nil {
		return nil, fmt.Errorf("%s: %w", plugin, err)
	}
	if resp.Error != nil {
		return nil, errors.New(resp.GetError())
	}
	if len(resp.File) != 1 {
		return nil, fmt.Errorf("%s: made %d files, want 1", plugin, len(resp.File))
	}
	return []byte(resp.File[0].GetContent()), nil
}
