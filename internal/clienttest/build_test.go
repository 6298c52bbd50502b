//go:build clients

package clienttest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// recipe says how one example is made and run, in the copy of its folder.
type recipe struct {
	needs string     // the command that has to be there, and how to get it
	build [][]string // commands
	run   []string   // the program; HOST:PORT and the topic follow
}

var recipes = map[string]recipe{
	"franz-go": {needs: "go"},
	"java": {
		needs: "mvn", // apt-get install default-jdk-headless maven
		build: [][]string{{"mvn", "-q", "-B", "compile"}},
		run:   []string{"java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", "target/classes:target/libs/*", "Example"},
	},
	"librdkafka": {
		needs: "make",
		build: [][]string{{"npm", "ci", "--ignore-scripts"}, {"make", "-j2", "CONFIGURE=--disable-optimization --disable-debug-symbols"}},
		run:   []string{"./example"},
	},
	"kcat": {needs: "kcat", run: []string{"./example.sh"}},
	"kafkajs": {
		needs: "npm",
		build: [][]string{{"npm", "ci"}},
		run:   []string{"node", "example.js"},
	},
}

// installed says what to install if a command is missing.
const installed = "apt-get install kcat jq nodejs npm default-jdk-headless maven build-essential zlib1g-dev libzstd-dev"

// builds makes each example once for all tests.
var builds = func() map[string]func() ([]string, error) {
	all := make(map[string]func() ([]string, error))
	for name := range recipes {
		all[name] = sync.OnceValues(func() ([]string, error) { return makeExample(name) })
	}
	return all
}()

// makeExample builds an example, unless that is done, and returns the command
// that runs it, whose first argument is a path.
func makeExample(name string) (command []string, err error) {
	r := recipes[name]
	if _, err := exec.LookPath(r.needs); err != nil {
		return nil, fmt.Errorf("%s: %w; install what the clients need: %s", name, err, installed)
	}
	source, dir := filepath.Join(root, "examples", name), filepath.Join(buildDir, name)
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	if name == "franz-go" {
		binary := filepath.Join(dir, name)
		if err := execute(source, "go", "build", "-o", binary, "."); err != nil {
			return nil, err
		}
		return []string{binary}, execute(source, "go", "build", "-o", binary+"-orders", "./orders")
	}
	sum, err := digest(source)
	if err != nil {
		return nil, err
	}
	stamp := filepath.Join(dir, ".built")
	if have, err := os.ReadFile(stamp); err != nil || string(have) != sum {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
		_ = os.Remove(stamp)
		if err := os.RemoveAll(filepath.Join(dir, "target")); err != nil {
			return nil, err
		}
		if err := copyFolder(dir, source); err != nil {
			return nil, err
		}
		for _, c := range r.build {
			if err := execute(dir, c...); err != nil {
				return nil, err
			}
		}
		if err := os.WriteFile(stamp, []byte(sum), 0o644); err != nil {
			return nil, err
		}
	}
	return r.run, nil
}

// execute runs a command, and returns what it printed if it fails.
func execute(dir string, command ...string) error {
	c := exec.Command(command[0], command[1:]...)
	c.Dir = dir
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s in %s: %w\n%s", strings.Join(command, " "), dir, err, out)
	}
	return nil
}

// eachFile calls visit with every file of a folder.
func eachFile(dir string, visit func(rel string, text []byte, mode fs.FileMode) error) error {
	return filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		text, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		return visit(rel, text, info.Mode())
	})
}

func copyFolder(to, from string) error {
	return eachFile(from, func(rel string, text []byte, mode fs.FileMode) error {
		name := filepath.Join(to, rel)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		return os.WriteFile(name, text, mode.Perm())
	})
}

// digest returns a number for all files of a folder.
func digest(dir string) (string, error) {
	h := sha256.New()
	err := eachFile(dir, func(rel string, text []byte, _ fs.FileMode) error {
		_, err := fmt.Fprintf(h, "%s %d\n%s", rel, len(text), text)
		return err
	})
	return hex.EncodeToString(h.Sum(nil)), err
}
