package main

import (
	"errors"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/flotilla-log/flotilla/internal/config"
)

// settingAnnotation marks a flag of the client commands that can be set by an
// environment variable too. A node's settings are config's to find.
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

// serviceLink matches the variables that Kubernetes sets in every container for
// a service whose name is flotilla or begins with it. They are nobody's
// settings.
var serviceLink = regexp.MustCompile(`^FLOTILLA_([A-Z0-9_]+_)?(SERVICE_(HOST|PORT)(_.+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_.+)?)?)$`)

// applyEnvironment sets the flags of c that the command line has not set. A
// FLOTILLA_ variable that no command knows is a usage error: a setting that is
// misspelt and ignored would be found out too late.
func applyEnvironment(c *cobra.Command, environ []string) error {
	known := map[string]bool{config.Variable(configFlag): true}
	for _, name := range config.Variables() {
		known[name] = true
	}
	c.Root().PersistentFlags().VisitAll(func(f *pflag.Flag) {
		if isSetting(f) {
			known[config.Variable(f.Name)] = true
		}
	})
	values := make(map[string]string)
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, config.Prefix) || !known[name] && serviceLink.MatchString(name) {
			continue
		}
		if !known[name] {
			return usageError{errors.New(config.Unknown("environment variable", name, slices.Sorted(maps.Keys(known))))}
		}
		values[name] = value
	}
	var err error
	c.Flags().VisitAll(func(f *pflag.Flag) {
		value, ok := values[config.Variable(f.Name)]
		if !ok || !isSetting(f) || f.Changed || err != nil {
			return
		}
		if bad := c.Flags().Set(f.Name, value); bad != nil {
			err = usagef("%s=%s: %w", config.Variable(f.Name), value, bad)
		}
	})
	return err
}
