package main

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const environmentPrefix = "FLOTILLA_"

// settingAnnotation marks a flag that can be set by an environment variable
// too.
const settingAnnotation = "flotilla_setting"

// markSettings lets FLOTILLA_ variables set the flags that fs has now.
func markSettings(fs *pflag.FlagSet) {
	fs.VisitAll(func(f *pflag.Flag) {
		if f.Annotations == nil {
			f.Annotations = make(map[string][]string)
		}
		f.Annotations[settingAnnotation] = []string{}
	})
}

func isSetting(f *pflag.Flag) bool { return f.Annotations[settingAnnotation] != nil }

// variable returns the environment variable of a flag: FLOTILLA_JOURNAL_BYTES
// of journal.bytes.
func variable(flag string) string {
	return environmentPrefix + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(flag))
}

// serviceLink matches the variables that Kubernetes sets in every container for
// a service whose name is flotilla or begins with it. They are nobody's
// settings.
var serviceLink = regexp.MustCompile(`^FLOTILLA_([A-Z0-9_]+_)?(SERVICE_(HOST|PORT)(_.+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_.+)?)?)$`)

// applyEnvironment sets the flags of c that the command line has not set. A
// FLOTILLA_ variable that no command knows is a usage error: a setting that is
// misspelt and ignored would be found out too late.
func applyEnvironment(c *cobra.Command, environ []string) error {
	known := make(map[string]bool)
	note := func(f *pflag.Flag) {
		if isSetting(f) {
			known[variable(f.Name)] = true
		}
	}
	c.Root().PersistentFlags().VisitAll(note)
	for _, sub := range c.Root().Commands() {
		sub.Flags().VisitAll(note)
	}
	values := make(map[string]string)
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, environmentPrefix) || !known[name] && serviceLink.MatchString(name) {
			continue
		}
		if !known[name] {
			return unknownVariable(name, slices.Sorted(maps.Keys(known)))
		}
		values[name] = value
	}
	var err error
	c.Flags().VisitAll(func(f *pflag.Flag) {
		value, ok := values[variable(f.Name)]
		if !ok || !isSetting(f) || f.Changed || err != nil {
			return
		}
		if bad := c.Flags().Set(f.Name, value); bad != nil {
			err = usagef("%s=%s: %w", variable(f.Name), value, bad)
		}
	})
	return err
}

func unknownVariable(name string, known []string) error {
	if near := nearest(name, known); near != "" {
		return usagef("unknown environment variable %s; did you mean %s?", name, near)
	}
	return usagef("unknown environment variable %s; there are %s", name, strings.Join(known, ", "))
}
