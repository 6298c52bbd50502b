package metadata

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/flotilla-log/flotilla/internal/errcode"
)

// ConfigType says how a config's value is written. The numbers are Kafka's.
type ConfigType int8

const (
	ConfigBool   ConfigType = 1 // true or false, in any case
	ConfigString ConfigType = 2 // one of Values
	ConfigInt    ConfigType = 3 // a number of 32 bits in [Min, Max]
	ConfigLong   ConfigType = 5 // a number of 64 bits in [Min, Max]
	ConfigDouble ConfigType = 6 // a decimal number in [Min, Max]
	ConfigList   ConfigType = 7 // any of Values, or of what check takes, separated by commas
)

// String returns the type's name, as Kafka's documentation has it.
func (t ConfigType) String() string {
	switch t {
	case ConfigBool:
		return "boolean"
	case ConfigString:
		return "string"
	case ConfigInt:
		return "int"
	case ConfigLong:
		return "long"
	case ConfigDouble:
		return "double"
	case ConfigList:
		return "list"
	}
	panic(fmt.Sprintf("metadata: config type %d", int8(t)))
}

// ConfigUse says what a config does.
type ConfigUse uint8

const (
	ConfigHonoured   ConfigUse = iota // what it does in Kafka
	ConfigTranslated                  // nothing: what it asks for is so, whatever its value
	ConfigIgnored                     // nothing, but that it is checked, kept and described
)

// ConfigDef is what is known of one topic config.
type ConfigDef struct {
	Key      string
	Type     ConfigType
	Use      ConfigUse
	Default  string
	Min, Max int64    // of a number, both included
	Values   []string // of a ConfigString; of a ConfigList, nil: check says which
	Synonym  string   // Kafka's name of it as a setting of a broker; "": none
	Doc      string   // a sentence or two, for people

	// check refuses a value of the right type, and says why; nil: none. elements
	// are those of a list.
	check func(value string, elements []string) (reason string)
}

// TopicConfigs returns what is known of all topic configs, ascending by key.
// The caller must not change what it refers to.
func TopicConfigs() []ConfigDef { return topicConfigs }

// configDef returns the definition of a key, or nil.
func configDef(key string) *ConfigDef {
	i, ok := slices.BinarySearchFunc(topicConfigs, key, func(d ConfigDef, key string) int {
		return strings.Compare(d.Key, key)
	})
	if !ok {
		return nil
	}
	return &topicConfigs[i]
}

// ConfigValue returns the value of a key in a topic's configs, or its default.
// It panics for a key that is not one of this package's constants.
func ConfigValue(configs []Config, key string) string {
	for _, c := range configs {
		if c.Key == key {
			return c.Value
		}
	}
	d := configDef(key)
	if d == nil {
		panic(fmt.Sprintf("metadata: no topic config %q", key))
	}
	return d.Default
}

// ConfigInt64 is ConfigValue of a number. A value that is none, which
// CheckConfigs lets pass nowhere, counts as the default.
func ConfigInt64(configs []Config, key string) int64 {
	n, err := strconv.ParseInt(strings.TrimSpace(ConfigValue(configs, key)), 10, 64)
	if err != nil {
		n, _ = strconv.ParseInt(ConfigValue(nil, key), 10, 64)
	}
	return n
}

// CheckConfigs checks a topic's configs: known keys, none twice, values in
// range and not in contradiction. The error has the code errcode.InvalidConfig.
func CheckConfigs(configs []Config) *errcode.Error {
	_, err := CanonicalConfigs(configs)
	return err
}

// CanonicalConfigs is CheckConfigs that also returns the configs as they are to
// be kept and shown: each value in its one form.
func CanonicalConfigs(configs []Config) ([]Config, *errcode.Error) {
	if len(configs) > MaxConfigs {
		return nil, errcode.Errorf(errcode.InvalidConfig, "%d configs, at most %d", len(configs), MaxConfigs)
	}
	var canonical []Config
	for i, c := range configs {
		if slices.ContainsFunc(configs[:i], func(other Config) bool { return other.Key == c.Key }) {
			return nil, errcode.Errorf(errcode.InvalidConfig, "%s is set twice", c.Key)
		}
		if err := CheckConfigKey(c.Key); err != nil {
			return nil, err
		}
		value, err := configDef(c.Key).parse(c.Value)
		if err != nil {
			return nil, err
		}
		canonical = append(canonical, Config{Key: c.Key, Value: value})
	}
	least, most := ConfigInt64(canonical, configMinCompactionLagMS), ConfigInt64(canonical, configMaxCompactionLagMS)
	if least > most {
		return nil, errcode.Errorf(errcode.InvalidConfig, "conflict topic config setting %s (%d) > %s (%d)",
			configMinCompactionLagMS, least, configMaxCompactionLagMS, most)
	}
	return canonical, nil
}

// CheckConfigKey refuses a key that is unknown, and suggests the nearest one
// that is known. The error has the code errcode.InvalidConfig.
func CheckConfigKey(key string) *errcode.Error {
	if configDef(key) != nil {
		return nil
	}
	if len(key) > MaxStringBytes {
		return errcode.Errorf(errcode.InvalidConfig, "a topic config's name of %d bytes", len(key))
	}
	best, bestAt := math.MaxInt, 0
	for i := range topicConfigs {
		if d := editDistance(key, topicConfigs[i].Key); d < best {
			best, bestAt = d, i
		}
	}
	// Further away than that, a guess would mislead.
	if best <= max(2, len(key)/3) {
		return errcode.Errorf(errcode.InvalidConfig, "Unknown topic config name: %s; did you mean %s?", key, topicConfigs[bestAt].Key)
	}
	return errcode.Errorf(errcode.InvalidConfig, "Unknown topic config name: %s", key)
}

// ConfigElements returns the elements of a ConfigList's value.
func ConfigElements(value string) []string {
	if value = strings.TrimSpace(value); value == "" {
		return nil
	}
	elements := strings.Split(value, ",")
	for i := range elements {
		elements[i] = strings.TrimSpace(elements[i])
	}
	return elements
}

// parse returns a value in its one form. The texts of its errors are Kafka's,
// as far as Kafka has them.
func (d *ConfigDef) parse(value string) (string, *errcode.Error) {
	if len(value) > MaxStringBytes {
		return "", errcode.Errorf(errcode.InvalidConfig, "a value of %d bytes for configuration %s, at most %d", len(value), d.Key, MaxStringBytes)
	}
	var elements []string
	var reason string
	trimmed := strings.TrimSpace(value)
	switch d.Type {
	case ConfigBool:
		trimmed = strings.ToLower(trimmed)
		if trimmed != "true" && trimmed != "false" {
			reason = "Expected value to be either true or false"
		}
	case ConfigInt, ConfigLong:
		trimmed, reason = d.parseWhole(trimmed)
	case ConfigDouble:
		trimmed, reason = d.parseDecimal(trimmed)
	case ConfigString:
		reason = d.oneOf(trimmed)
	case ConfigList:
		elements = ConfigElements(value)
		for _, e := range elements {
			if e == "" {
				return "", errcode.Errorf(errcode.InvalidConfig, "Configuration '%s' values must not be empty.", d.Key)
			}
			if d.Values != nil && reason == "" {
				if reason = d.oneOf(e); reason != "" {
					value = e
				}
			}
		}
		elements = distinct(elements)
		trimmed = strings.Join(elements, ",")
	default:
		panic(fmt.Sprintf("metadata: config type %d of %s", d.Type, d.Key))
	}
	if reason == "" && d.check != nil {
		reason = d.check(trimmed, elements)
	}
	if reason != "" {
		return "", errcode.Errorf(errcode.InvalidConfig, "Invalid value %s for configuration %s: %s", value, d.Key, reason)
	}
	return trimmed, nil
}

// parseWhole returns a number's one form, or why it is none of d's.
func (d *ConfigDef) parseWhole(value string) (canonical, reason string) {
	bits := 64
	if d.Type == ConfigInt {
		bits = 32
	}
	switch n, err := strconv.ParseInt(value, 10, bits); {
	case err != nil:
		return "", "Not a number of type " + strings.ToUpper(d.Type.String())
	case n < d.Min:
		return "", fmt.Sprintf("Value must be at least %d", d.Min)
	case n > d.Max:
		return "", fmt.Sprintf("Value must be no more than %d", d.Max)
	default:
		return strconv.FormatInt(n, 10), ""
	}
}

func (d *ConfigDef) parseDecimal(value string) (canonical, reason string) {
	switch x, err := strconv.ParseFloat(value, 64); {
	case err != nil || math.IsNaN(x):
		return "", "Not a number of type DOUBLE"
	case x < float64(d.Min):
		return "", fmt.Sprintf("Value must be at least %d", d.Min)
	case x > float64(d.Max):
		return "", fmt.Sprintf("Value must be no more than %d", d.Max)
	default:
		return value, "" // as it was given, as in Kafka: 1 is not 1.0 to who compares texts
	}
}

func (d *ConfigDef) oneOf(value string) (reason string) {
	if slices.Contains(d.Values, value) {
		return ""
	}
	return "String must be one of: " + strings.Join(d.Values, ", ")
}

// distinct returns the elements without those that were there before.
func distinct(elements []string) []string {
	var kept []string
	for _, e := range elements {
		if !slices.Contains(kept, e) {
			kept = append(kept, e)
		}
	}
	return kept
}

func checkCleanup(_ string, elements []string) string {
	if slices.Contains(elements, cleanupCompact) {
		return "compaction is not built yet; only delete is"
	}
	return ""
}

func checkGzipLevel(value string, _ []string) string {
	if value == "0" {
		return "Value must be between 1 and 9 or equal to -1"
	}
	return ""
}

func checkRemote(value string, _ []string) string {
	if value == "true" {
		return "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage."
	}
	return ""
}

// checkThrottled takes "*", or pairs of partition and node.
func checkThrottled(value string, elements []string) string {
	if value == "*" {
		return ""
	}
	for _, e := range elements {
		partition, node, two := strings.Cut(e, ":")
		if !two || !digits(partition) || !digits(node) {
			return "want the literal '*' or a list of replicas in the following format: [partitionId]:[brokerId],[partitionId]:[brokerId],..."
		}
	}
	return ""
}

func digits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// editDistance counts the single-character changes that make b of a
// (Levenshtein, 1966).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
