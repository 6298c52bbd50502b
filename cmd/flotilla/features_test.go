package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/flotilla-log/flotilla/client"
)

// unpack copies a golden data directory, whose files are compressed, into dir.
func unpack(t *testing.T, golden, dir string) {
	t.Helper()
	err := fs.WalkDir(os.DirFS(golden), ".", func(name string, d fs.DirEntry, err error) error {
		to := filepath.Join(dir, strings.TrimSuffix(name, ".gz"))
		if err != nil || d.IsDir() {
			return errors.Join(err, os.MkdirAll(to, 0o755))
		}
		packed, err := os.ReadFile(filepath.Join(golden, name))
		if err != nil {
			return err
		}
		r, err := gzip.NewReader(bytes.NewReader(packed))
		if err != nil {
			return err
		}
		b, err := io.ReadAll(r)
		return errors.Join(err, os.WriteFile(to, b, 0o644))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestUpgrade raises the level of a directory of an older version, and restarts.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	unpack(t, "../../internal/node/testdata/golden/directory-level1/data", dir)
	s, err := startServer(dir, "--admin.listen", "off")
	if err != nil {
		t.Fatal(err)
	}
	stop := func() {
		t.Helper()
		if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if code := s.wait(); code != exitOK {
			t.Fatalf("serve ended with %d\n%s", code, s.log)
		}
	}
	prints := func(want string, args ...string) result {
		t.Helper()
		r := s.ok(t, "", append([]string{"features"}, args...)...)
		if !regexp.MustCompile("^" + want + "$").MatchString(r.stdout) {
			t.Errorf("features %q prints\n%swant\n%s", args, r.stdout, want)
		}
		return r
	}
	var knows featuresDescription
	if err := json.Unmarshal([]byte(s.ok(t, "", "features", "describe", "-o", "json").stdout), &knows); err != nil || len(knows.Nodes) != 1 || *knows.Nodes[0].MaxLevel < 2 {
		t.Fatalf("%+v, %v", knows, err)
	}
	newest := *knows.Nodes[0].MaxLevel
	const shards = `"shards":\[{"shard":1,"apply_version":\d},{"shard":2,"apply_version":\d}\]}\n`
	described := prints("feature level 1\n\nNODE  KNOWS UP TO LEVEL\n1     "+fmt.Sprint(newest)+"\n\nSHARD  APPLY VERSION\n1      1\n2      1\n", "describe")
	if want := fmt.Sprintf("every node knows level %d; once you will not go back to the version before: flotilla features upgrade\n", newest); described.stderr != want {
		t.Errorf("features describe says %q, want %q", described.stderr, want)
	}
	prints(fmt.Sprintf(`{"feature_level":1,"nodes":\[{"node":1,"max_feature_level":%d}\],`, newest)+shards, "describe", "-o", "json")
	prints(fmt.Sprintf("the feature level could be raised from 1 to %d; nothing was changed\n", newest), "upgrade", "--dry-run")
	prints(fmt.Sprintf(`{"before":1,"feature_level":%d,"changed":false}\n`, newest), "upgrade", "--dry-run", "-o", "json")
	prints("the feature level is 1 already\n", "upgrade", "--level", "1")
	s.run(t, "", "features", "upgrade", "--level", fmt.Sprint(newest+1)).want(t, exitFailed, "INVALID_UPDATE_VERSION", "not known to node 1")
	s.run(t, "", "features", "upgrade", "--level", "0").want(t, exitUsage, "--level is at least 1")
	prints(fmt.Sprintf("raised the feature level from 1 to %d\n", newest), "upgrade")
	stop()

	if s, err = startServer(dir, "--admin.listen", "off"); err != nil {
		t.Fatal(err)
	}
	if r := prints(fmt.Sprintf(`{"feature_level":%d,"nodes":\[{"node":1,"max_feature_level":%d}\],`, newest, newest)+shards, "describe", "-o", "json"); r.stderr != "" {
		t.Errorf("features describe says %q", r.stderr)
	}
	s.run(t, "", "features", "upgrade", "--level", "1").want(t, exitFailed, "INVALID_UPDATE_VERSION", "is never lowered to 1")
	if got := s.ok(t, "", "consume", "orders", "--until", "end").stdout; strings.Count(got, "above the checkpoint") != 2 {
		t.Errorf("consumed %q", got)
	}
	stop()
}

func TestPrintFeatures(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	f := client.Features{Level: 1, Nodes: []client.NodeFeatures{{NodeID: 1, MaxLevel: 12}, {NodeID: 20}}}
	if err := errors.Join(printFeatures(&out, f), printJSON(&out, describeFeatures(f))); err != nil {
		t.Fatal(err)
	}
	const want = "feature level 1\n\nNODE  KNOWS UP TO LEVEL\n1     12\n20    -\n\nSHARD  APPLY VERSION\n" +
		`{"feature_level":1,"nodes":[{"node":1,"max_feature_level":12},{"node":20,"max_feature_level":null}],"shards":[]}` + "\n"
	if got := out.String(); got != want {
		t.Errorf("prints\n%swant\n%s", got, want)
	}
}
