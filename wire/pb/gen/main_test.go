package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestGeneratedCodeIsCurrent(t *testing.T) {
	t.Parallel()
	dir := ".."
	want, err := generate(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, output))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s is stale, run go generate ./wire/pb (-generated +committed):\n%s", output, diff)
	}
}
