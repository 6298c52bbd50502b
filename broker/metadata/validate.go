package metadata

import "github.com/flotilla-log/flotilla/internal/errcode"

// CheckTopicName applies Kafka's rules for topic names. The error has the code
// errcode.InvalidTopic.
func CheckTopicName(name string) *errcode.Error {
	switch {
	case name == "":
		return errcode.Errorf(errcode.InvalidTopic, "Topic name is invalid: the empty string is not allowed")
	case name == "." || name == "..":
		return errcode.Errorf(errcode.InvalidTopic, "Topic name is invalid: '%s' is not allowed", name)
	case len(name) > MaxTopicNameBytes:
		return errcode.Errorf(errcode.InvalidTopic, "Topic name is invalid: the length of '%s' is longer than the max allowed length %d", errcode.Short(name), MaxTopicNameBytes)
	}
	for i := range len(name) {
		if !isTopicNameByte(name[i]) {
			return errcode.Errorf(errcode.InvalidTopic, "Topic name is invalid: '%s' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'", name)
		}
	}
	return nil
}

func isTopicNameByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-'
}

func checkPartitions(n int) *errcode.Error {
	if n < 1 || n > MaxTopicPartitions {
		return errcode.Errorf(errcode.InvalidPartitions, "%d partitions, want 1 to %d", n, MaxTopicPartitions)
	}
	return nil
}

// checkStrings refuses what would not fit a command.
func checkStrings(ss ...string) *errcode.Error {
	for _, s := range ss {
		if len(s) > MaxStringBytes {
			return errcode.Errorf(errcode.InvalidRequest, "a string of %d bytes, at most %d", len(s), MaxStringBytes)
		}
	}
	return nil
}
