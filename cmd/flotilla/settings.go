package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/flotilla-log/flotilla/internal/config"
)

// configFlag names the settings file. It is no setting itself: a file does not
// name another.
const configFlag = "config"

// settingValue is the flag of a setting. It checks what it is given; the value
// itself is config.Resolve's to find.
type settingValue struct {
	setting *config.Setting
	text    string
}

// String implements pflag.Value.
func (v *settingValue) String() string { return v.text }

// Set implements pflag.Value.
func (v *settingValue) Set(s string) error {
	text, _, err := v.setting.Parse(s)
	if err == nil {
		v.text = text
	}
	return err
}

// Type implements pflag.Value.
func (v *settingValue) Type() string {
	switch v.setting.Kind {
	case config.Text, config.Choice:
		return "string"
	case config.Int:
		return "int"
	case config.Bool:
		return "bool"
	}
	return v.setting.Kind.String()
}

// addSettings gives c a flag for every setting, and --config.
func addSettings(c *cobra.Command, hidden bool) {
	fl := c.Flags()
	fl.String(configFlag, "", "file of settings, in YAML ($FLOTILLA_CONFIG)")
	for i := range config.Settings {
		s := &config.Settings[i]
		usage := s.Doc
		if s.Default == "" && s.DefaultText != "" && !strings.Contains(usage, "default") {
			usage += "; default: " + s.DefaultText
		}
		f := fl.VarPF(&settingValue{setting: s, text: s.Default}, s.Key, "", usage)
		if s.Kind == config.Bool {
			f.NoOptDefVal = "true"
		}
		f.Hidden = hidden
		if s.Kind == config.Choice {
			_ = c.RegisterFlagCompletionFunc(s.Key, cobra.FixedCompletions(s.Choices, cobra.ShellCompDirectiveNoFileComp)) // the flag exists
		}
	}
	_ = c.MarkFlagFilename(configFlag, "yaml", "yml")
	_ = c.MarkFlagDirname("data.dir")
}

// settings finds the values of c's settings: of its flags over the environment
// over the file.
func settings(c *cobra.Command, environ []string) (*config.Values, error) {
	src := config.Sources{Flags: make(map[string]string), Environ: environ, Machine: thisMachine()}
	c.Flags().Visit(func(f *pflag.Flag) {
		if config.Find(f.Name) != nil {
			src.Flags[f.Name] = f.Value.String()
		}
	})
	name, from := c.Flag(configFlag).Value.String(), "--"+configFlag
	if !c.Flags().Changed(configFlag) {
		name, from = lookUpVariable(environ, config.Variable(configFlag)), config.Variable(configFlag)
	}
	if name != "" {
		var err error
		if src.File, err = readSettings(name); err != nil {
			return nil, usagef("%s: %w", from, err)
		}
	}
	v, err := config.Resolve(src)
	if err != nil {
		return nil, usageError{err}
	}
	return v, nil
}

func lookUpVariable(environ []string, name string) string {
	for _, kv := range environ {
		if n, value, _ := strings.Cut(kv, "="); n == name {
			return value
		}
	}
	return ""
}

// readSettings reads a settings file, of which it takes no more into memory than
// such a file may have.
func readSettings(name string) (*config.File, error) {
	f, err := os.Open(filepath.Clean(name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, config.MaxFileBytes+1))
	if err != nil {
		return nil, err
	}
	return config.ParseFile(name, content), nil
}

// thisMachine finds out what defaults depend on.
func thisMachine() config.Machine {
	m := config.Machine{MemoryBytes: config.Memory(os.DirFS("/"))}
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err == nil {
		m.OpenFiles = int64(min(files.Max, 1<<31-1))
	}
	return m
}

// raiseFiles lets the process open as many files as the node plans with, and
// returns how many it may open.
func raiseFiles(want int64) (int64, error) {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return 0, err
	}
	if uint64(files.Cur) >= uint64(want) {
		return int64(min(files.Cur, 1<<31-1)), nil
	}
	files.Cur = min(uint64(want), files.Max)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return 0, fmt.Errorf("raise the limit of open files to %d: %w", files.Cur, err)
	}
	return int64(files.Cur), nil
}

func configCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "config",
		Short: "Show, explain and check the settings of a node",
		Long: `Show, explain and check the settings of "flotilla serve". A setting is given as a
flag (--journal.bytes), as a variable (FLOTILLA_JOURNAL_BYTES), or in one YAML
file (--config FILE), and in that order the first one holds.`,
		Args: noSuchCommand,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(configPrintCommand(), configExplainCommand(), configCheckCommand())
	hideConnectionFlags(c)
	return c
}

func configPrintCommand() *cobra.Command {
	var changed bool
	out := yamlOrJSON("yaml")
	c := &cobra.Command{
		Use:   "print",
		Short: "Print the value of every setting, and where it comes from",
		Long: `Print the value of every setting as "flotilla serve" would have it here and now,
with the same flags, variables and file, and where it comes from. What is
printed as YAML is a settings file.`,
		Example: `  flotilla config print --changed
  flotilla config print --config flotilla.yaml -o json`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			v, err := settings(c, os.Environ())
			if err != nil {
				return err
			}
			if out == "json" {
				return printSettings(c.OutOrStdout(), v, changed)
			}
			_, err = io.WriteString(c.OutOrStdout(), v.YAML(changed))
			return err
		},
	}
	addSettings(c, true)
	c.Flags().BoolVar(&changed, "changed", false, "leave out what is as by default")
	c.Flags().VarP(&out, "output", "o", "yaml or json")
	hideConnectionFlags(c)
	return c
}

// yamlOrJSON is the value of --output of config print.
type yamlOrJSON string

// String implements pflag.Value.
func (o *yamlOrJSON) String() string { return string(*o) }

// Set implements pflag.Value.
func (o *yamlOrJSON) Set(s string) error {
	if s != "yaml" && s != "json" {
		return fmt.Errorf("%q: give yaml or json", s)
	}
	*o = yamlOrJSON(s)
	return nil
}

// Type implements pflag.Value.
func (o *yamlOrJSON) Type() string { return "format" }

// printSettings writes one JSON object a setting.
func printSettings(w io.Writer, v *config.Values, changed bool) error {
	for _, val := range v.All() {
		if changed && val.Origin.Kind == config.FromDefault {
			continue
		}
		err := printJSON(w, struct {
			Key    string `json:"key"`
			Value  string `json:"value"`
			Origin string `json:"origin"`
		}{val.Setting.Key, val.Text, val.From()})
		if err != nil {
			return err
		}
	}
	return nil
}

func configExplainCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "explain [KEY...]",
		Short: "Say what settings mean; without a key, list all",
		Example: `  flotilla config explain
  flotilla config explain journal.bytes memory.bytes`,
		ValidArgsFunction: cobra.FixedCompletions(config.Keys(), cobra.ShellCompDirectiveNoFileComp),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return listSettings(c.OutOrStdout())
			}
			var texts []string
			for _, key := range args {
				s := config.Find(key)
				if s == nil {
					return usageError{errors.New(config.Unknown("setting", key, config.Keys()))}
				}
				texts = append(texts, s.Describe())
			}
			_, err := io.WriteString(c.OutOrStdout(), strings.Join(texts, "\n"))
			return err
		},
	}
	hideConnectionFlags(c)
	return c
}

func listSettings(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "SETTING\tDEFAULT\tMEANING")
	for i := range config.Settings {
		s := &config.Settings[i]
		value := s.Default
		if value == "" {
			value = "-"
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\n", s.Key, value, s.Doc)
	}
	return tw.Flush()
}

func configCheckCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "check FILE",
		Short: "Check a settings file, and name all that is wrong with it",
		Long: `Check a settings file as "flotilla serve --config FILE" would read it on this
machine, without flags and variables, and name all that is wrong with it.`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("%s takes one file, not %d arguments; see %q", c.CommandPath(), len(args), c.CommandPath()+" --help")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			file, err := readSettings(args[0])
			if errors.Is(err, fs.ErrNotExist) {
				return usagef("%w", err)
			}
			if err != nil {
				return err
			}
			v, err := config.Resolve(config.Sources{File: file, Machine: thisMachine()})
			if err != nil {
				return usageError{err}
			}
			set := 0
			for _, val := range v.All() {
				if val.Origin.Kind == config.FromFile {
					set++
				}
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s: %d settings, nothing wrong\n", args[0], set)
			return err
		},
	}
	hideConnectionFlags(c)
	return c
}
