package main

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/internal/config"
)

const deployDir = "../../deploy/"

// mostFiles is the most that files.max is by itself.
const mostFiles = 1 << 20

// defaultDuration is a setting's default.
func defaultDuration(t *testing.T, key string) time.Duration {
	t.Helper()
	v, err := config.Resolve(config.Sources{})
	if err != nil {
		t.Fatal(err)
	}
	return v.Duration(key)
}

// TestUnit holds the systemd unit against the settings and exit statuses that it
// relies on.
func TestUnit(t *testing.T) {
	t.Parallel()
	unit := make(map[string]string)
	for line := range strings.Lines(read(t, deployDir+"flotilla.service")) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(line, "#") {
			unit[key] = value
		}
	}
	stop, err := time.ParseDuration(unit["TimeoutStopSec"])
	if drain := defaultDuration(t, "drain.timeout"); err != nil || stop < drain+30*time.Second {
		t.Errorf("TimeoutStopSec=%s is not well above drain.timeout, %s (%v)", unit["TimeoutStopSec"], drain, err)
	}
	if n, err := strconv.Atoi(unit["LimitNOFILE"]); err != nil || n != mostFiles {
		t.Errorf("LimitNOFILE=%s, want %d: %v", unit["LimitNOFILE"], mostFiles, err)
	}
	v, err := config.Resolve(config.Sources{Machine: config.Machine{OpenFiles: 1 << 30}})
	if err != nil || v.Int("files.max") != mostFiles {
		t.Errorf("files.max plans with %d by itself, %v", v.Int("files.max"), err)
	}
	never := strings.Fields(unit["RestartPreventExitStatus"])
	if !slices.Equal(never, []string{strconv.Itoa(exitUsage), strconv.Itoa(exitStopped)}) || unit["Restart"] != "on-failure" {
		t.Errorf("Restart=%s, not after %v", unit["Restart"], never)
	}
	if unit["User"] == "" || unit["User"] == "root" || unit["KillSignal"] != "SIGTERM" || unit["Type"] != "exec" {
		t.Errorf("User=%s KillSignal=%s Type=%s", unit["User"], unit["KillSignal"], unit["Type"])
	}
	args := strings.Fields(unit["ExecStart"])
	if len(args) < 2 || args[1] != "serve" {
		t.Fatalf("ExecStart=%s", unit["ExecStart"])
	}
	if err := serveCommand().ParseFlags(args[2:]); err != nil {
		t.Errorf("ExecStart=%s: %v", unit["ExecStart"], err)
	}
	for _, key := range []string{"StateDirectory", "ConfigurationDirectory"} {
		if dir := "/" + unit[key] + "/"; unit[key] == "" || !strings.Contains(unit["ExecStart"], dir) {
			t.Errorf("ExecStart=%s is not below %s=%s", unit["ExecStart"], key, unit[key])
		}
	}
}

// TestDockerfile: the variables of the image are settings with values that they
// take, its data lies in its volume, and it runs as nobody in particular.
func TestDockerfile(t *testing.T) {
	t.Parallel()
	file := read(t, deployDir+"Dockerfile")
	find := func(pattern string) string {
		m := regexp.MustCompile(`(?m)^`+pattern+`$`).FindAllStringSubmatch(file, -1)
		if m == nil {
			t.Errorf("no line like %s", pattern)
			return ""
		}
		return m[len(m)-1][1] // of the last stage
	}
	environ := []string{"FLOTILLA_ADVERTISE=node1.example.com:9092"} // of who runs it
	for _, m := range regexp.MustCompile(`(?m)^ENV (\S+)$`).FindAllStringSubmatch(file, -1) {
		environ = append(environ, m[1])
		if name, _, _ := strings.Cut(m[1], "="); !slices.Contains(config.Variables(), name) {
			t.Errorf("ENV %s: %s is no setting", m[1], name)
		}
	}
	v, err := config.Resolve(config.Sources{Environ: environ})
	if err != nil {
		t.Fatal(err)
	}
	volume := find(`VOLUME (\S+)`)
	if dir := v.Text("data.dir"); !strings.HasPrefix(dir, volume+"/") {
		t.Errorf("the data is in %s, and the volume is %s", dir, volume)
	}
	user := find(`USER (\S+)`)
	if uid, err := strconv.Atoi(strings.Split(user, ":")[0]); err != nil || uid < 1000 {
		t.Errorf("USER %s", user)
	}
	if owner := find(`COPY --from=build --chown=(\S+) \S+ ` + regexp.QuoteMeta(volume)); owner != user {
		t.Errorf("%s belongs to %s, and the node runs as %s", volume, owner, user)
	}
	if base := find(`FROM (\S+)(?: AS \S+)?`); base != "scratch" || !strings.Contains(file, "CGO_ENABLED=0 go build") {
		t.Errorf("FROM %s, without a static binary", base)
	}
	version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(read(t, "../../go.mod"))
	if !strings.Contains(file, "FROM golang:"+version[1]+" AS build") {
		t.Errorf("it is not built with Go %s", version[1])
	}
	if c, _, err := rootCommand().Find([]string{find(`CMD \["(\w+)"\]`)}); err != nil || c.Name() != "serve" {
		t.Errorf("CMD is not serve: %v", err)
	}
	for _, port := range []string{"listen", "admin.listen"} {
		_, number, _ := strings.Cut(v.Text(port), ":")
		if !regexp.MustCompile(`(?m)^EXPOSE .*\b` + number + `\b`).MatchString(file) {
			t.Errorf("port %s of %s is not exposed", number, port)
		}
	}
}

// TestOperationsNames: settings, metrics, commands and alerts that
// docs/operations.md and the files of deploy name are there.
func TestOperationsNames(t *testing.T) {
	t.Parallel()
	page, metrics := read(t, operationsDoc), read(t, "../../docs/metrics.md")
	text := page + read(t, deployDir+"flotilla.service") + read(t, deployDir+"Dockerfile")

	named := 0
	sections := make(map[string]bool) // what settings begin with
	for _, key := range config.Keys() {
		sections[strings.Split(key, ".")[0]] = true
	}
	for _, m := range regexp.MustCompile("`([a-z]+(?:\\.[a-z]+)+)(?:[: ][^`]*)?`").FindAllStringSubmatch(page, -1) {
		if !sections[strings.Split(m[1], ".")[0]] || strings.HasSuffix(m[1], ".yaml") {
			continue
		}
		if named++; config.Find(m[1]) == nil {
			t.Errorf("%s is no setting", m[1])
		}
	}
	for _, m := range regexp.MustCompile(`FLOTILLA_[A-Z_]+`).FindAllString(text, -1) {
		if named++; m != config.Prefix && !slices.Contains(config.Variables(), m) {
			t.Errorf("%s is no variable", m)
		}
	}
	for _, m := range regexp.MustCompile(`\bflotilla_[a-z_]+`).FindAllString(text, -1) {
		if named++; !strings.Contains(metrics, "| `"+m+"` |") {
			t.Errorf("%s is in no list of metrics", m)
		}
	}
	for _, m := range regexp.MustCompile("(?m)(?:`|^\\$ |[|] )flotilla ((?:[a-z-]+ ?)+)").FindAllStringSubmatch(page, -1) {
		words := strings.Fields(m[1])
		c, _, err := rootCommand().Find(words)
		if named++; err != nil || c == c.Root() || len(words) > 1 && c.HasSubCommands() && c.Name() == words[0] {
			t.Errorf("flotilla %s is no command: %v", m[1], err)
		}
	}
	if named < 60 {
		t.Errorf("only %d names were found", named)
	}

	// Each alert has its row, and each row an alert.
	rows := func(page, head string) (names []string) {
		_, table, _ := strings.Cut(page, head)
		for line := range strings.Lines(table) {
			if !strings.HasPrefix(line, "|") {
				break
			}
			if cell := strings.TrimSpace(strings.Split(line, "|")[1]); cell != "---" {
				names = append(names, strings.Split(cell, ", ")...)
			}
		}
		slices.Sort(names)
		return names
	}
	alerts, answers := rows(metrics, "| alert | expression | what it means |\n"), rows(page, "| alert | look at | then |\n")
	if len(alerts) < 10 || !slices.Equal(alerts, answers) {
		t.Errorf("alerts of docs/metrics.md\n%q\nand those that docs/operations.md answers\n%q", alerts, answers)
	}
}
