package config

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v4"
)

// YAML writes the values as a settings file, each with where it comes from.
// Reading it back gives the same values. changed leaves out defaults.
func (v *Values) YAML(changed bool) string {
	var b strings.Builder
	for i := range v.all {
		val := &v.all[i]
		if changed && val.Origin.Kind == FromDefault {
			continue
		}
		text := val.Text
		if val.Setting.Kind == Text {
			text = scalar(text)
		}
		line := val.Setting.Key + ": " + text
		fmt.Fprintf(&b, "%-42s # %s\n", line, val.From())
	}
	return b.String()
}

// scalar writes text so that YAML reads it as one scalar of the same text.
func scalar(text string) string {
	out, err := yaml.Marshal(text)
	if err != nil { // text has no control characters
		panic("config: " + err.Error())
	}
	one := strings.TrimSpace(string(out))
	if strings.ContainsAny(one, "\n") {
		return fmt.Sprintf("%q", text)
	}
	return one
}

// Describe writes all that the table says about the setting, for a terminal.
func (s *Setting) Describe() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n", s.Key, s.Doc)
	if s.Explain != "" {
		fmt.Fprintf(&b, "\n%s\n", s.Explain)
	}
	b.WriteByte('\n')
	row := func(name, text string) {
		if text != "" {
			fmt.Fprintf(&b, "  %-9s %s\n", name, text)
		}
	}
	row("type", s.Kind.String())
	row("values", s.Range())
	row("default", s.DefaultForPeople())
	row("metric", s.Metric)
	row("beyond it", s.Error)
	row("flag", "--"+s.Key)
	row("variable", s.Variable())
	row("change", "takes effect at the next start")
	return b.String()
}

// Markdown writes the table for docs/configuration.md: one section after the
// other, and for each setting what Describe says.
func Markdown() string {
	var b strings.Builder
	section := ""
	for i := range Settings {
		s := &Settings[i]
		if s.Section != section {
			section = s.Section
			fmt.Fprintf(&b, "\n### %s\n", section)
		}
		fmt.Fprintf(&b, "\n#### `%s`\n\n%s.\n", s.Key, upper(s.Doc))
		if s.Explain != "" {
			fmt.Fprintf(&b, "%s\n", s.Explain)
		}
		what := s.Kind.String()
		if r := s.Range(); r != "" {
			what += ", " + r
		}
		fmt.Fprintf(&b, "\n- Value: %s. Default: %s.\n", what, code(s))
		if s.Metric != "" {
			fmt.Fprintf(&b, "- Metric: %s.\n", codeMetric(s.Metric))
		}
		if s.Error != "" {
			fmt.Fprintf(&b, "- Beyond it: %s.\n", s.Error)
		}
	}
	return b.String()
}

func upper(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

func code(s *Setting) string {
	if s.Default == "" || s.DefaultText != "" {
		return s.DefaultForPeople()
	}
	return "`" + s.Default + "`"
}

// codeMetric puts the names of metrics into code quotes.
func codeMetric(text string) string {
	words := strings.Fields(text)
	for i, w := range words {
		if strings.HasPrefix(w, "flotilla_") || strings.HasPrefix(w, "process_") || strings.HasPrefix(w, "{") {
			bare := strings.TrimRight(w, ";,")
			words[i] = "`" + bare + "`" + w[len(bare):]
		}
	}
	return strings.Join(words, " ")
}
