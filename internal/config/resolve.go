package config

import (
	"fmt"
	"net"
	"slices"
	"strings"
)

// Sources are where values come from.
type Sources struct {
	Flags   map[string]string // by key, those that were given
	Environ []string          // NAME=value, as os.Environ gives them
	File    *File             // nil: none
	Machine Machine
}

// Resolve returns the value of every setting. The error is an *Error with all
// that is wrong in one source, the file's problems first.
//
// Variables that are no setting's are not looked at: whoever reads the
// environment knows of others.
func Resolve(src Sources) (*Values, error) {
	values := &Values{all: make([]Value, len(Settings))}
	env := environment(src.Environ)
	var problems []string
	if src.File != nil {
		problems = append(problems, src.File.problems...)
	}
	for i := range Settings {
		s := &Settings[i]
		v := &values.all[i]
		v.Setting = s
		text, given := s.Default, s.computed == nil
		if src.File != nil {
			if e, ok := src.File.entries[s.Key]; ok {
				text, given, v.Origin = e.text, true, Origin{Kind: FromFile, File: src.File.Name, Line: e.line}
			}
		}
		if e, ok := env[s.Variable()]; ok {
			text, given, v.Origin = e, true, Origin{Kind: FromEnvironment}
		}
		if f, ok := src.Flags[s.Key]; ok {
			text, given, v.Origin = f, true, Origin{Kind: FromFlag}
		}
		if !given {
			continue
		}
		var err error
		if v.Text, v.Number, err = s.Parse(text); err != nil {
			problems = append(problems, v.Name()+": "+err.Error())
		}
	}
	if len(problems) > 0 {
		return nil, &Error{Problems: problems}
	}
	// In the order of the table: what is computed looks only upwards.
	for i := range values.all {
		if v := &values.all[i]; v.Setting.computed != nil && v.Origin.Kind == FromDefault {
			v.Number = v.Setting.computed(src.Machine, values)
			v.Text = v.Setting.format(v.Number)
		}
	}
	if problems = values.check(src.Machine); len(problems) > 0 {
		return nil, &Error{Problems: problems}
	}
	return values, nil
}

func environment(environ []string) map[string]string {
	env := make(map[string]string)
	for _, kv := range environ {
		if name, value, ok := strings.Cut(kv, "="); ok && strings.HasPrefix(name, Prefix) {
			env[name] = value
		}
	}
	return env
}

// frameApart is what a frame holds beside its batches.
const frameApart = 64 << 10

// journalFiles is how many files a journal needs at least.
const journalFiles = 4

// check refuses values that are good by themselves and cannot work together.
func (v *Values) check(m Machine) (problems []string) {
	refuse := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	v.checkAddresses(refuse)
	v.checkCluster(refuse)
	if ring, file := v.Of("journal.bytes"), v.Of("journal.file.bytes"); ring.Number < journalFiles*file.Number {
		refuse("%s %s is less than %d files of %s %s", ring.Name(), ring.Text, journalFiles, file.Name(), file.Text)
	}
	files, conns := v.Of("files.max"), v.Of("connections.max")
	if m.OpenFiles > 0 && files.Number > m.OpenFiles {
		refuse("%s %s is more than the %d files that this process may open; raise its limit (ulimit -Hn, or LimitNOFILE= of systemd)",
			files.Name(), files.Text, m.OpenFiles)
	}
	if conns.Number > files.Number-filesApart {
		refuse("%s %s does not fit into %s %s, of which %d are for the node itself; raise one or lower the other",
			conns.Name(), conns.Text, files.Name(), files.Text, filesApart)
	}
	if ip := v.Of("connections.max.per.ip"); ip.Number > conns.Number {
		refuse("%s %s is more than %s %s", ip.Name(), ip.Text, conns.Name(), conns.Text)
	}
	if topic, all := v.Of("topics.partitions.max"), v.Of("partitions.max"); topic.Number > all.Number && topic.Origin.Kind != FromDefault {
		refuse("%s %s is more than %s %s", topic.Name(), topic.Text, all.Name(), all.Text)
	}
	if least, most := v.Of("group.min.session.timeout"), v.Of("group.max.session.timeout"); least.Number > most.Number {
		refuse("%s %s is more than %s %s", least.Name(), least.Text, most.Name(), most.Text)
	}
	if beat, session := v.Of("group.consumer.heartbeat.interval"), v.Of("group.consumer.session.timeout"); beat.Number >= session.Number {
		refuse("%s %s is not less than %s %s", beat.Name(), beat.Text, session.Name(), session.Text)
	}
	if each, most := v.Of("num.partitions"), v.Of("topics.partitions.max"); each.Number > most.Number {
		refuse("%s %s is more than %s %s", each.Name(), each.Text, most.Name(), most.Text)
	}
	if replicas := v.Of("default.replication.factor"); replicas.Number == 0 {
		refuse("%s 0: give a number of replicas, or -1 for 3, or one on each node if there are fewer", replicas.Name())
	}
	frame, batch := v.Of("request.bytes.max"), v.Of("batch.bytes.max")
	if largest := min(batch.Number, v.Bytes("journal.file.bytes")/journalFiles); frame.Number < largest+frameApart {
		refuse("%s %s is less than %s %s and %s; raise one or lower the other",
			frame.Name(), frame.Text, batch.Name(), FormatSize(largest), FormatSize(frameApart))
	}
	if path := v.Of("data.dir"); path.Text == "" {
		refuse("%s: give a directory", path.Name())
	}
	return problems
}

func (v *Values) checkAddresses(refuse func(string, ...any)) {
	listen, advertise, admin := v.Of("listen"), v.Of("advertise"), v.Of("admin.listen")
	all, err := Listeners(listen.Text, advertise.Text)
	if err != nil {
		at := listen
		if _, err := Listeners(listen.Text, ""); err == nil {
			at = advertise
		}
		refuse("%s: %v", at.Name(), err)
	}
	for _, l := range all {
		host, _, _ := net.SplitHostPort(l.Listen)
		// Clients connect to what they are told; "any address" is none.
		if ip := net.ParseIP(host); l.Advertise == "" && (host == "" || ip != nil && ip.IsUnspecified()) {
			name := ""
			if l.Name != FirstListener {
				name = l.Name + "="
			}
			refuse("%s %s takes connections to any address; say with --advertise %sHOST:PORT (or the setting advertise) which one to tell clients",
				listen.Name(), l.Listen, name)
		}
	}
	if _, _, err := net.SplitHostPort(admin.Text); err != nil && !AdminOff(admin.Text) {
		refuse("%s %q: give HOST:PORT, such as 127.0.0.1:9292, or off", admin.Name(), admin.Text)
	}
}

// AdminOff reports that a value of admin.listen means no listener.
func AdminOff(text string) bool { return text == "" || text == "off" }

// Variables returns the environment variables of all settings, sorted.
func Variables() []string {
	names := make([]string, len(Settings))
	for i := range Settings {
		names[i] = Settings[i].Variable()
	}
	slices.Sort(names)
	return names
}
